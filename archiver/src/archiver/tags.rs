//! Tags: names for positions.
//!
//! Owns: the promise that everything committed before the call is durable in the archive when a tag is answered, and
//! saying so where that cannot be known.

use std::time::Duration;

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, PutDocument},
        schema::{DOCUMENT_VERSION, Extra, TagDocument, TagGroup},
    },
    clock::Micros,
    ids::SequenceNumber,
    tag,
};

use super::Archiver;
use crate::{
    control::{GroupRequest, TagRequest, Unflushed, UntagRequest},
    elapsed::Moment,
};

/// A tag whose writing took longer than this is taken back: half of what retention leaves alone in any case.
const LATE: Duration = Duration::from_secs(crate::retention::policy::YOUNG.as_secs() / 2);

/// A tag that waits for the archive.
#[derive(Debug)]
pub(crate) struct TagBegun {
    request: TagRequest,
    name: tag::Name,
    created: Micros,
    flushed: bool,
    /// What the owner of the database had committed.
    committed: Option<SequenceNumber>,
}

impl Archiver {
    /// Names the present position. Returns when everything committed before the call is durable in the archive.
    ///
    /// # Errors
    /// `tag.unflushed-wal` where the server may hold committed writes in its memory, `tag.exists`, `tag.malformed-name`.
    pub async fn tag(&mut self, request: &TagRequest) -> Result<TagDocument> {
        let begun = self.begin_tag(request)?;
        self.drain().await?;
        self.finish_tag(begun).await
    }

    /// Makes sure that what is committed now can be read from the database's files.
    pub(crate) fn begin_tag(&self, request: &TagRequest) -> Result<TagBegun> {
        let name = tag::Name::parse(&request.name)?;
        let created = self.parts.clock.now();
        let flushed = self.engine.flush_owner()?;
        if !flushed && request.unflushed == Unflushed::Refuse {
            return Err(Error::new(Code::UnflushedWal, "creating the tag").on(&request.name));
        }
        let committed = self.parts.owner.latest_sequence()?.map(SequenceNumber::new);
        Ok(TagBegun { request: request.clone(), name, created, flushed, committed })
    }

    /// While a part of the log cannot be read, nobody is told that everything is in the archive.
    ///
    /// # Errors
    /// `wal.corrupt`.
    pub fn refuse_while_waiting(&self, doing: &'static str) -> Result<()> {
        match self.engine.waiting() {
            None => Ok(()),
            Some(why) => Err(Error::new(Code::WalCorrupt, doing).with("waiting", why)),
        }
    }

    /// Names the end of what the archive has acknowledged; everything that was there when the tag was begun is in it.
    pub(crate) async fn finish_tag(&mut self, begun: TagBegun) -> Result<TagDocument> {
        let TagBegun { request, name, created, flushed, committed } = begun;
        let read = self.acknowledged.position.sequence;
        let flushed = flushed && committed.is_none_or(|committed| committed <= read);
        if !flushed && request.unflushed == Unflushed::Refuse {
            return Err(Error::new(Code::UnflushedWal, "creating the tag")
                .on(&request.name)
                .with("read up to sequence", read)
                .hint(
                    "the database is further than its log shows: writes with disableWAL are in no log and in no tag",
                ));
        }
        self.refuse_while_waiting("creating the tag").map_err(|e| e.on(&request.name))?;
        let group = request.group.map(|group| member_of(group, self.parts.clock.now(), &request.name)).transpose()?;
        let document = TagDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            name: request.name.clone(),
            position: self.acknowledged.position,
            created,
            note: request.note,
            observed_only: !flushed,
            expires: request.expires,
            group,
            nonce: self.parts.random.nonce()?,
            extra: Extra::new(),
        };
        let asked = Moment::now(&*self.parts.clock);
        if self.head_known.ago(&*self.parts.clock) >= LATE {
            // What is the newest position here may be none any more.
            self.refuse_second_place().await?;
        }
        crate::crash::point("tag-before-put");
        let put = self.archive.put_tag(&document, &self.claim, &*self.parts.random).await?;
        crate::crash::point("tag-after-put");
        match put {
            // Retention leaves alone what is young. A tag that was not, once it was there, can name what is deleted.
            PutDocument::Created { .. } if asked.ago(&*self.parts.clock) >= LATE => {
                self.archive.delete_tag(&name).await?;
                Err(Error::new(Code::StoreUnavailable, "creating the tag")
                    .on(&request.name)
                    .hint("it took so long that what it names may not be kept any more: create it again"))
            }
            PutDocument::Created { .. } => {
                self.roll_up.tags.push((self.archive.tag_hash(&name), document.position));
                self.parts.metrics.tag();
                Ok(document)
            }
            PutDocument::Conflict(other) => {
                let boundary = other.position.boundary;
                Err(Error::new(Code::TagExists, "creating the tag").on(&request.name).with("names boundary", boundary))
            }
        }
    }
}

/// What a tag says of its group when its position is fixed `now`.
fn member_of(group: GroupRequest, now: Micros, tag: &str) -> Result<TagGroup> {
    let GroupRequest { name, id, members, began, until } = group;
    if now > until {
        return Err(Error::new(Code::StoreUnavailable, "creating the tag")
            .on(tag)
            .with("asked for until", until)
            .with("the archive had all of it at", now)
            .hint("it would name another moment than the tags of the other databases: create it again when the archive answers"));
    }
    Ok(TagGroup { name, id, members, began, closed: now, extra: Extra::new() })
}

/// Takes back a tag that belongs to a group tag which not all databases got. Another tag of this name stays; answers whether
/// it was there.
///
/// # Errors
/// `tag.malformed-name`, what the store answers.
pub(crate) async fn untag(archive: &Archive, request: &UntagRequest) -> Result<bool> {
    let name = tag::Name::parse(&request.name)?;
    let is_of = |tag: &TagDocument| tag.group.as_ref().is_some_and(|group| group.id == request.group);
    match archive.get_tag(&name).await?.filter(is_of) {
        Some(_) => archive.delete_tag(&name).await,
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::Nonce;

    use super::*;

    #[test]
    fn a_position_that_was_fixed_too_late_is_no_part_of_a_group_tag() {
        let group = || GroupRequest {
            name: "shop".to_owned(),
            id: Nonce([1; 16]),
            members: Vec::new(),
            began: Micros(10),
            until: Micros(20),
        };
        let made = member_of(group(), Micros(20), "t").unwrap();
        assert_eq!((made.began, made.closed, made.id), (Micros(10), Micros(20), Nonce([1; 16])));
        assert_eq!(member_of(group(), Micros(21), "t").unwrap_err().code(), Code::StoreUnavailable);
    }
}

//! What the archives of a group have under one tag's name.
//!
//! Owns: reading it, and joining what was read with what could not be. What it means is [`judge`]'s.

use futures::{StreamExt as _, stream};
use pitr_archive::{
    Error, Result,
    catalog::schema::{TagDocument, TagGroup},
    ids::{ArchiveId, Nonce},
    tag,
};
use pitr_replayer::group::judge::{Configured, Tagged, Whole, Why, judge};

use super::{AT_ONCE, Fault, OpenArchive, Opened};

/// A tag as the judgement sees it.
pub fn tagged(tag: Option<TagDocument>) -> Tagged {
    match tag {
        None => Tagged::Nothing,
        Some(TagDocument { group: None, .. }) => Tagged::Alone,
        Some(TagDocument { group: Some(part), .. }) => Tagged::Part(part),
    }
}

/// The group tag of that name, and in which archives (by their position) each member has its part; or everybody at fault.
pub async fn find(group: &str, name: &tag::Name, opened: &[Opened]) -> Result<(Whole, Vec<Vec<usize>>), Vec<Fault>> {
    let read = |archive: &OpenArchive| {
        let (id, archive) = (archive.archive.id(), archive.archive.clone());
        async move { (id, archive.get_tag(name).await) }
    };
    let mut configured = Vec::new();
    let mut unread: Vec<Vec<(String, Error)>> = Vec::new();
    for member in opened {
        let tags: Vec<_> = stream::iter(member.archives.iter().map(read)).buffered(AT_ONCE).collect().await;
        let mut found: Vec<(ArchiveId, Tagged)> = Vec::new();
        let mut failed: Vec<_> = Vec::new();
        for (archive, (id, tag)) in member.archives.iter().zip(tags) {
            match tag {
                Ok(tag) => found.push((id, tagged(tag))),
                Err(e) => failed.push((archive.name.clone(), e)),
            }
        }
        configured.push(Configured { database: member.database.clone(), found });
        unread.push(failed);
    }
    match judge(group, &configured) {
        Ok(whole) => {
            let parts = opened.iter().zip(&configured).map(|(member, one)| holding(whole.id, member, one)).collect();
            Ok((whole, parts))
        }
        Err(faults) => Err(faults
            .into_iter()
            .map(|fault| {
                let member = opened.iter().zip(&unread).find(|(member, _)| member.database == fault.database);
                let hidden: Vec<_> =
                    member.map(|(member, unread)| member.failed.iter().chain(unread).collect()).unwrap_or_default();
                because(&fault.database, &fault.why, &hidden)
            })
            .collect()),
    }
}

/// In which of the archives the part of this group tag is.
fn holding(id: Nonce, member: &Opened, one: &Configured) -> Vec<usize> {
    let is_part = |archive: ArchiveId| {
        one.found.iter().any(|(found, tagged)| {
            *found == archive && matches!(tagged, Tagged::Part(TagGroup { id: own, .. }) if *own == id)
        })
    };
    let positions = member.archives.iter().enumerate();
    positions.filter(|(_, archive)| is_part(archive.archive.id())).map(|(position, _)| position).collect()
}

/// "No such tag" is not said of an archive that could not be read.
fn because(database: &str, why: &Why, hidden: &[&(String, Error)]) -> Fault {
    match (why, hidden) {
        (_, []) => Fault::saying(database, why.to_string()),
        (Why::NoTag, all) => Fault::of_all(database, all.iter().copied()),
        (_, all) => {
            let all: Vec<_> = all.iter().map(|(archive, e)| format!("{archive} could not be read: {e}")).collect();
            Fault::saying(database, format!("{why}; {}", all.join("; ")))
        }
    }
}

//! Names of objects in an archive.
//!
//! Owns: building and parsing every key, side by side. Numbers have a fixed width so that a listing sorts by them.
//! Refuses: keys from outside that leave the archive's prefix.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{BaseId, ContentHash, Epoch, ManifestNumber, ManifestNumbers, Ordinal, Ordinals, TimelineId};

/// The name of an object, relative to the archive's root; `/` separates, never begins or ends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The archive's identity; its exclusive creation creates the archive.
    pub fn archive() -> Self {
        Self("archive.json".to_owned())
    }

    /// A timeline's description.
    pub fn timeline(id: TimelineId) -> Self {
        Self(format!("timelines/{:010}.doc", id.get()))
    }

    /// A writer's claim.
    pub fn epoch(epoch: Epoch) -> Self {
        Self(format!("epochs/{:020}.doc", epoch.get()))
    }

    /// A segment. One that was merged from others has the first and the last of their ordinals in its name; it sorts next to
    /// the first of them.
    pub fn segment(timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Self {
        let ordinals = ordinals.into();
        let (timeline, first, last) = (timeline.get(), ordinals.first().get(), ordinals.last().get());
        if ordinals.is_merged() {
            Self(format!("segments/{timeline:010}/{first:020}-{last:020}.seg"))
        } else {
            Self(format!("segments/{timeline:010}/{first:020}.seg"))
        }
    }

    /// A roll-up manifest.
    pub fn manifest(timeline: TimelineId, number: ManifestNumber) -> Self {
        Self(format!("manifests/{:010}/{:020}.doc", timeline.get(), number.get()))
    }

    /// An index over manifests.
    pub fn index(timeline: TimelineId, manifests: ManifestNumbers) -> Self {
        let (timeline, first, last) = (timeline.get(), manifests.first().get(), manifests.last().get());
        Self(format!("indexes/{timeline:010}/{first:020}-{last:020}.doc"))
    }

    /// The statement that segments of a timeline below `ordinal` have been deleted and must not be created again.
    /// The highest one counts.
    pub fn boundary(timeline: TimelineId, ordinal: Ordinal) -> Self {
        Self(format!("boundaries/{:010}/{:020}.doc", timeline.get(), ordinal.get()))
    }

    /// A later statement about the same ordinal. It sorts behind the earlier ones, and before those about higher ordinals.
    pub fn boundary_revision(timeline: TimelineId, ordinal: Ordinal, revision: u64) -> Self {
        match revision {
            0 => Self::boundary(timeline, ordinal),
            _ => Self(format!("boundaries/{:010}/{:020}_{revision:010}.doc", timeline.get(), ordinal.get())),
        }
    }

    /// Objects that are no longer part of the archive; `id` is time and random.
    pub fn condemned(id: &BaseId) -> Self {
        Self(format!("condemned/{id}.doc"))
    }

    /// A restore that is under way; `id` is time and random.
    pub fn hold(id: &BaseId) -> Self {
        Self(format!("holds/{id}.doc"))
    }

    /// The report of a drill; `id` is time and random.
    pub fn drill(id: &BaseId) -> Self {
        Self(format!("drills/{id}.doc"))
    }

    /// A base's description.
    pub fn base(id: &BaseId) -> Self {
        Self(format!("bases/{id}.doc"))
    }

    /// A tag; `hash` is of its name, keyed in an encrypted archive, because names are secret there.
    pub fn tag(hash: ContentHash) -> Self {
        Self(format!("tags/{hash}.doc"))
    }

    /// An SST or blob file shared between bases. `identity` is lower-case hexadecimal (`base::FileIdentity`).
    pub fn file(identity: &str) -> Self {
        Self(format!("files/{identity}.dat"))
    }

    /// An object that the store's self-test writes and deletes.
    pub fn probe(name: &str) -> Self {
        Self(format!("probe/{name}"))
    }

    /// A key as a store listed it; `None` when it is not a name this type could have built.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        text.split('/').all(plain).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the name without its ending.
    pub fn stem(&self) -> &str {
        let name = self.0.rsplit('/').next().unwrap_or(&self.0);
        name.split_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The ordinal, when this is the key of a segment as an archiver wrote it.
    pub fn segment_ordinal(&self) -> Option<Ordinal> {
        self.segment_ordinals().filter(|ordinals| !ordinals.is_merged()).map(Ordinals::first)
    }

    /// The ordinals, when this is a segment's key, merged or not.
    pub fn segment_ordinals(&self) -> Option<Ordinals> {
        if !(self.0.starts_with("segments/") && self.0.ends_with(".seg")) {
            return None;
        }
        let stem = self.stem();
        match stem.split_once('-') {
            None => stem.parse::<Ordinal>().ok().map(Ordinals::from),
            // One ordinal has one name.
            Some((first, last)) => {
                Ordinals::new(first.parse().ok()?, last.parse().ok()?).filter(|ordinals| ordinals.is_merged())
            }
        }
    }

    /// The number, when this is a manifest's key.
    pub fn manifest_number(&self) -> Option<ManifestNumber> {
        (self.0.starts_with("manifests/") && self.0.ends_with(".doc")).then(|| self.stem().parse().ok()).flatten()
    }

    /// The manifests that it is over, when this is an index's key.
    pub fn index_numbers(&self) -> Option<ManifestNumbers> {
        if !(self.0.starts_with("indexes/") && self.0.ends_with(".doc")) {
            return None;
        }
        let (first, last) = self.stem().split_once('-')?;
        ManifestNumbers::new(first.parse().ok()?, last.parse().ok()?)
    }

    /// The epoch, when this is a writer's claim.
    pub fn epoch_number(&self) -> Option<Epoch> {
        (self.0.starts_with("epochs/") && self.0.ends_with(".doc")).then(|| self.stem().parse().ok()).flatten()
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not the name of an object"))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginnings under which each kind of object is listed; each ends with `/`.
pub mod prefix {
    use crate::ids::TimelineId;

    /// Timelines.
    pub const TIMELINES: &str = "timelines/";
    /// Writers' claims.
    pub const EPOCHS: &str = "epochs/";
    /// Bases.
    pub const BASES: &str = "bases/";
    /// Tags.
    pub const TAGS: &str = "tags/";
    /// Shared files of bases.
    pub const FILES: &str = "files/";
    /// Deletion boundaries of all timelines.
    pub const BOUNDARIES: &str = "boundaries/";
    /// Lists of what is no longer part of the archive.
    pub const CONDEMNED: &str = "condemned/";
    /// Restores under way.
    pub const HOLDS: &str = "holds/";
    /// Reports of drills.
    pub const DRILLS: &str = "drills/";
    /// What the store's self-test writes.
    pub const PROBE: &str = "probe/";

    /// Segments of one timeline.
    pub fn segments(timeline: TimelineId) -> String {
        format!("segments/{:010}/", timeline.get())
    }

    /// Deletion boundaries of one timeline.
    pub fn boundaries(timeline: TimelineId) -> String {
        format!("boundaries/{:010}/", timeline.get())
    }

    /// Indexes over manifests of one timeline.
    pub fn indexes(timeline: TimelineId) -> String {
        format!("indexes/{:010}/", timeline.get())
    }

    /// Manifests of one timeline.
    pub fn manifests(timeline: TimelineId) -> String {
        format!("manifests/{:010}/", timeline.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back_to_their_numbers_and_sort_by_them() {
        let a = ObjectKey::segment(TimelineId::FIRST, Ordinal::new(9));
        let b = ObjectKey::segment(TimelineId::FIRST, Ordinal::new(10));
        assert!(a < b);
        assert_eq!(ObjectKey::parse(b.as_str()).and_then(|k| k.segment_ordinal()), Some(Ordinal::new(10)));
        assert_eq!(ObjectKey::archive().segment_ordinal(), None);
        let merged = Ordinals::new(Ordinal::new(10), Ordinal::new(12)).unwrap();
        let m = ObjectKey::segment(TimelineId::FIRST, merged);
        assert!(a < m && m < ObjectKey::segment(TimelineId::FIRST, Ordinal::new(11)), "{m}");
        assert_eq!(ObjectKey::parse(m.as_str()).and_then(|k| k.segment_ordinals()), Some(merged));
        assert_eq!(m.segment_ordinal(), None);
        assert_eq!(ObjectKey::parse("segments/1/5-5.seg").and_then(|k| k.segment_ordinals()), None);
        let manifests = ManifestNumbers::new(ManifestNumber::new(16), ManifestNumber::new(31)).unwrap();
        let index = ObjectKey::index(TimelineId::FIRST, manifests);
        assert_eq!(ObjectKey::parse(index.as_str()).and_then(|k| k.index_numbers()), Some(manifests));
        let boundary = |n, revision| ObjectKey::boundary_revision(TimelineId::FIRST, Ordinal::new(n), revision);
        let sorted = [boundary(9, 0), boundary(9, 1), boundary(9, 10), boundary(10, 0), boundary(10, 1)];
        assert!(sorted.is_sorted(), "a later statement counts before an earlier one: {sorted:?}");
        for bad in ["", "/", "a//b", "../x", "a/../b", "a/b/", "a b", "ü"] {
            assert_eq!(ObjectKey::parse(bad), None, "{bad:?}");
        }
    }
}

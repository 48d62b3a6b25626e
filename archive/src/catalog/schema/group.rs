//! What a tag says that is one of several: one moment in several databases.
//!
//! Owns: field names. Refuses: what the tags of a group must say together (whoever reads all of them decides that).

use serde::{Deserialize, Serialize};

use super::Extra;
use crate::{
    clock::Micros,
    ids::{ArchiveId, Nonce},
};

/// The group tag that a tag is a part of. It is complete where every member has a tag of this name with the same `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagGroup {
    /// The group's name.
    pub name: String,
    /// Random for every group tag, the same in all of its tags.
    pub id: Nonce,
    /// All databases of the group, this one among them, in order of their names.
    pub members: Vec<TagMember>,
    /// Before any of the tags was asked for: what was committed by then is in all of them.
    pub began: Micros,
    /// When this tag's position was fixed: what was written later is not in it.
    pub closed: Micros,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A database of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagMember {
    /// Its name.
    pub database: String,
    /// Its archives; the tag is in at least one of them.
    pub archives: Vec<ArchiveId>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

#[cfg(test)]
mod tests {
    use super::{super::TagDocument, *};

    const ALONE: &str = r#"{"version":1,"archive":"000102030405060708090a0b0c0d0e0f","name":"before",
        "position":{"timeline":1,"boundary":7,"hash":"0000000000000000000000000000000000000000000000000000000000000000","sequence":9},
        "created":5,"note":"","observed_only":false,"nonce":"ffffffffffffffffffffffffffffffff"}"#;

    const OF_A_GROUP: &str = r#"{"name":"shop","id":"11111111111111111111111111111111","members":[
        {"database":"shop-0","archives":["000102030405060708090a0b0c0d0e0f"]},
        {"database":"shop-1","archives":["101112131415161718191a1b1c1d1e1f","202122232425262728292a2b2c2d2e2f"],"weight":3}],
        "began":4,"closed":6,"later":true}"#;

    #[test]
    fn a_tag_of_version_1_reads_with_and_without_a_group_and_keeps_what_is_unknown() {
        let alone: TagDocument = serde_json::from_str(ALONE).unwrap();
        assert_eq!(alone.group, None);
        assert!(!serde_json::to_string(&alone).unwrap().contains("group"));

        let open = ALONE.strip_suffix('}').unwrap();
        let text = format!(r#"{open},"group":{OF_A_GROUP}}}"#);
        let tag: TagDocument = serde_json::from_str(&text).unwrap();
        let group = tag.group.clone().unwrap();
        assert_eq!((group.name.as_str(), group.began, group.closed), ("shop", Micros(4), Micros(6)));
        let archives: Vec<_> = group.members.iter().map(|m| (m.database.as_str(), m.archives.len())).collect();
        assert_eq!(archives, [("shop-0", 1), ("shop-1", 2)]);
        assert_eq!((&group.extra["later"], &group.members[1].extra["weight"]), (&true.into(), &3.into()));
        let again: TagDocument = serde_json::from_str(&serde_json::to_string(&tag).unwrap()).unwrap();
        assert_eq!(again, tag);
    }
}

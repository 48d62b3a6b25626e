//! Whether the tags of several databases are one group tag.
//!
//! Owns: the comparison of what the tags say with what the configuration has, database by database. Pure: whoever calls has
//! read the tags. Refuses: to be content with a part of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use pitr_archive::{
    catalog::schema::{TagGroup, TagMember},
    clock::Micros,
    ids::{ArchiveId, Nonce},
};

/// A database that the configuration has in the group, and what was found in those of its archives that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Its name.
    pub database: String,
    /// Each archive with its tag of that name.
    pub found: Vec<(ArchiveId, Tagged)>,
}

/// What an archive has under the tag's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// No such tag.
    Nothing,
    /// A tag of this database alone.
    Alone,
    /// A part of a group tag.
    Part(TagGroup),
}

/// The group tag that the tags are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its id.
    pub id: Nonce,
    /// What was committed by then is in all of it.
    pub began: Micros,
    /// What was written later than this is in none of it.
    pub closed: Micros,
}

/// A database that stands in the way, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, in the configuration or, where it lacks it, in the tags.
    pub database: String,
    /// Why.
    pub why: Why,
}

/// Why a database stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has no tag of that name.
    NoTag,
    /// Its tag was made for it alone.
    Alone,
    /// Its tag is of another group.
    OtherGroup(String),
    /// Its tag is of another group tag of the same name.
    OtherTag {
        /// When that one was begun.
        began: Micros,
        /// When the one that most databases have was.
        others: Micros,
    },
    /// The others' tags do not name it.
    NotNamed,
    /// It was tagged under another name.
    Renamed(String),
    /// It was tagged in other archives.
    OtherArchive,
    /// The tags name it, and the configuration has no such database in the group.
    NotConfigured,
    /// Its tag names other databases than the others do.
    OtherMembers,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTag => f.write_str("it has no such tag"),
            Self::Alone => f.write_str("its tag of this name is no group's"),
            Self::OtherGroup(name) => write!(f, "its tag of this name is of the group {name}"),
            Self::OtherTag { began, others } => write!(
                f,
                "its tag of this name is of another moment: of the group tag that was begun at {began}, not at {others}"
            ),
            Self::NotNamed => f.write_str("it was not in the group when that was tagged"),
            Self::Renamed(then) => write!(f, "it was called {then} when the group was tagged"),
            Self::OtherArchive => f.write_str("its archive is another one than when the group was tagged"),
            Self::NotConfigured => f.write_str("it was tagged with the group, and the configuration lacks it there"),
            Self::OtherMembers => f.write_str("its tag names other databases than the others' tags do"),
        }
    }
}

/// The group tag that most databases have, as far as anybody has one; of equally many the one that was begun last.
pub fn reference<'a>(group: &str, configured: &'a [Configured]) -> Option<&'a TagGroup> {
    let mut known: BTreeMap<[u8; 16], (BTreeSet<&str>, &TagGroup)> = BTreeMap::new();
    for one in configured {
        for part in one.parts().filter(|part| part.name == group) {
            known.entry(part.id.0).or_insert_with(|| (BTreeSet::new(), part)).0.insert(&one.database);
        }
    }
    known.into_values().max_by_key(|(databases, part)| (databases.len(), part.began)).map(|(_, part)| part)
}

/// The group tag, if every database of the configuration and of the tags has its part of it; else every one that is at fault.
///
/// # Errors
/// Those databases, in order of their names.
pub fn judge(group: &str, configured: &[Configured]) -> Result<Whole, Vec<Fault>> {
    let Some(reference) = reference(group, configured) else {
        let none = |one: &Configured| Fault { database: one.database.clone(), why: one.lacks(group, None) };
        return Err(configured.iter().map(none).collect());
    };
    let mut faults = Vec::new();
    let mut closed = reference.closed;
    for one in configured {
        match one.part_of(reference) {
            Ok(part) => closed = closed.max(part.closed),
            Err(why) => faults.push(Fault { database: one.database.clone(), why }),
        }
    }
    let renamed = faults.iter().filter_map(|fault| match &fault.why {
        Why::Renamed(then) => Some(then.clone()),
        _ => None,
    });
    let renamed: Vec<_> = renamed.collect();
    for member in &reference.members {
        let known = configured.iter().any(|one| one.database == member.database) || renamed.contains(&member.database);
        if !known {
            faults.push(Fault { database: member.database.clone(), why: Why::NotConfigured });
        }
    }
    if faults.is_empty() {
        return Ok(Whole { id: reference.id, began: reference.began, closed });
    }
    faults.sort_by(|a, b| a.database.cmp(&b.database));
    Err(faults)
}

/// In which archives a database was tagged, by the same group tag.
fn entry<'a>(group: &'a TagGroup, database: &str) -> Option<&'a TagMember> {
    group.members.iter().find(|member| member.database == database)
}

impl Configured {
    fn parts(&self) -> impl Iterator<Item = &TagGroup> {
        self.found.iter().filter_map(|(_, tagged)| match tagged {
            Tagged::Part(part) => Some(part),
            _ => None,
        })
    }

    fn part_of(&self, reference: &TagGroup) -> Result<&TagGroup, Why> {
        let own = self.found.iter().filter_map(|(archive, tagged)| match tagged {
            Tagged::Part(part) if part.id == reference.id && part.name == reference.name => Some((archive, part)),
            _ => None,
        });
        let own: Vec<_> = own.collect();
        let then = |archive: &ArchiveId| {
            let before = reference.members.iter().find(|member| member.archives.contains(archive));
            before.map(|member| member.database.clone())
        };
        let Some(named) = entry(reference, &self.database) else {
            let renamed = self.found.iter().find_map(|(archive, _)| then(archive));
            return Err(renamed.map_or(Why::NotNamed, Why::Renamed));
        };
        if own.is_empty() {
            let known = |(archive, _): &(ArchiveId, Tagged)| named.archives.contains(archive);
            let other = !self.found.is_empty() && !self.found.iter().any(known);
            return Err(if other { Why::OtherArchive } else { self.lacks(&reference.name, Some(reference)) });
        }
        let Some((_, part)) = own.into_iter().find(|(archive, _)| named.archives.contains(archive)) else {
            return Err(Why::OtherArchive);
        };
        let names = |group: &TagGroup| -> BTreeMap<String, BTreeSet<[u8; 16]>> {
            let archives = |member: &TagMember| member.archives.iter().map(|id| id.0).collect();
            group.members.iter().map(|member| (member.database.clone(), archives(member))).collect()
        };
        if names(part) != names(reference) {
            return Err(Why::OtherMembers);
        }
        Ok(part)
    }

    /// Why there is no part of the group tag.
    fn lacks(&self, group: &str, reference: Option<&TagGroup>) -> Why {
        if let (Some(other), Some(reference)) = (self.parts().find(|part| part.name == group), reference) {
            return Why::OtherTag { began: other.began, others: reference.began };
        }
        if let Some(other) = self.parts().next() {
            return Why::OtherGroup(other.name.clone());
        }
        let alone = self.found.iter().any(|(_, tagged)| *tagged == Tagged::Alone);
        if alone { Why::Alone } else { Why::NoTag }
    }
}

#[cfg(test)]
mod tests;

//! Which databases of a configuration are one application's.
//!
//! Owns: a group's members, each with its archives in the order in which they are asked: its `archive`, then its `archives` by
//! name. Refuses: groups that nobody belongs to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use pitr_archive::{Code, Error, Result};

use super::{
    file::{self, File},
    jobs::{self, Job},
};

/// Databases that are tagged and restored together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What is done for it as a whole.
    pub section: file::Group,
    /// In order of their names.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub database: String,
    /// Its directory.
    pub db: PathBuf,
    /// Its archives.
    pub jobs: Vec<Job>,
}

/// A group of the configuration.
///
/// # Errors
/// `group.unknown`, `config.contradictory`.
pub fn of(file: &File, name: &str) -> Result<Group> {
    let mut jobs: BTreeMap<String, Vec<Job>> = BTreeMap::new();
    for job in jobs::of(file)? {
        let database = job.name.split('/').next().unwrap_or_default().to_owned();
        jobs.entry(database).or_default().push(job);
    }
    let members: Vec<_> = file
        .databases
        .iter()
        .filter(|(_, database)| database.group.as_deref() == Some(name))
        .map(|(key, database)| Member {
            database: key.clone(),
            db: database.db.clone(),
            jobs: jobs.remove(key).unwrap_or_default(),
        })
        .collect();
    if members.is_empty() {
        let known: BTreeSet<_> = file.databases.values().filter_map(|database| database.group.as_deref()).collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.into_iter().collect::<Vec<_>>().join(", "),
        };
        return Err(Error::new(Code::GroupUnknown, "reading the group").on(name).with("there is", known));
    }
    let section = file.groups.get(name).cloned().unwrap_or_default();
    Ok(Group { name: name.to_owned(), section, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
        [databases.shop-1]
        db = \"/db/shop-1\"
        group = \"shop\"
        archive.url = \"file:/a/shop-1\"
        [databases.shop-0]
        db = \"/db/shop-0\"
        group = \"shop\"
        archives.near.url = \"file:/a/near\"
        archives.far.url = \"file:/a/far\"
        [databases.other]
        db = \"/db/other\"
        archive.url = \"file:/a/other\"
    ";

    #[test]
    fn a_group_is_the_databases_that_name_it_each_with_all_its_archives() {
        let file: File = toml::from_str(FILE).unwrap();
        let group = of(&file, "shop").unwrap();
        let shown = |member: &Member| {
            (member.database.clone(), member.jobs.iter().map(|job| job.url.clone()).collect::<Vec<_>>())
        };
        let [first, second] = [&group.members[0], &group.members[1]].map(shown);
        assert_eq!(first, ("shop-0".to_owned(), vec!["file:/a/far".to_owned(), "file:/a/near".to_owned()]));
        assert_eq!(second, ("shop-1".to_owned(), vec!["file:/a/shop-1".to_owned()]));
        assert_eq!(group.members.len(), 2);
    }

    #[test]
    fn an_unknown_group_is_refused_with_those_that_there_are() {
        let file: File = toml::from_str(FILE).unwrap();
        let e = of(&file, "bank").unwrap_err();
        assert!(e.code() == Code::GroupUnknown && e.to_string().contains("there is=shop"), "{e}");
    }
}

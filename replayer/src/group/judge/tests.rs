//! Every way in which tags can fail to be one group tag.

use super::*;

const ONE: Nonce = Nonce([1; 16]);
const TWO: Nonce = Nonce([2; 16]);

fn archive(number: u8) -> ArchiveId {
    ArchiveId([number; 16])
}

fn member(database: &str, archives: &[u8]) -> TagMember {
    let archives = archives.iter().map(|number| archive(*number)).collect();
    TagMember { database: database.to_owned(), archives, extra: Default::default() }
}

/// A part of the group tag of the shards a, b and c, whose archives are 1, 2 and 3.
fn part(id: Nonce, closed: i64) -> TagGroup {
    TagGroup {
        name: "shop".to_owned(),
        id,
        members: vec![member("a", &[1]), member("b", &[2]), member("c", &[3])],
        began: Micros(10 * i64::from(id.0[0])),
        closed: Micros(closed),
        extra: Default::default(),
    }
}

fn configured(database: &str, number: u8, tagged: Tagged) -> Configured {
    Configured { database: database.to_owned(), found: vec![(archive(number), tagged)] }
}

/// All three have their part of the first group tag, but for what is changed.
fn three(change: impl FnOnce(&mut Vec<Configured>)) -> Result<Whole, Vec<(String, Why)>> {
    let of = |(name, number): (&str, u8)| configured(name, number, Tagged::Part(part(ONE, 10 + i64::from(number))));
    let mut all: Vec<_> = [("a", 1), ("b", 2), ("c", 3)].into_iter().map(of).collect();
    change(&mut all);
    judge("shop", &all).map_err(|faults| faults.into_iter().map(|fault| (fault.database, fault.why)).collect())
}

fn only(database: &str, why: Why) -> Result<Whole, Vec<(String, Why)>> {
    Err(vec![(database.to_owned(), why)])
}

#[test]
fn the_tags_of_all_with_one_id_are_a_group_tag_that_closed_with_the_last() {
    let whole = three(|_| {}).unwrap();
    assert_eq!(whole, Whole { id: ONE, began: Micros(10), closed: Micros(13) });
}

#[test]
fn each_database_at_fault_is_named_with_its_reason() {
    let tagged = |tagged: Tagged| three(move |all| all[1].found[0].1 = tagged);
    assert_eq!(tagged(Tagged::Nothing), only("b", Why::NoTag));
    assert_eq!(tagged(Tagged::Alone), only("b", Why::Alone));
    let other = TagGroup { name: "bank".to_owned(), ..part(ONE, 12) };
    assert_eq!(tagged(Tagged::Part(other)), only("b", Why::OtherGroup("bank".to_owned())));
    let another = Why::OtherTag { began: Micros(20), others: Micros(10) };
    assert_eq!(tagged(Tagged::Part(part(TWO, 25))), only("b", another), "the two others agree");
    let mut less = part(ONE, 12);
    less.members.pop();
    assert_eq!(tagged(Tagged::Part(less)), only("b", Why::OtherMembers));
    let both = three(|all| {
        all[0].found[0].1 = Tagged::Nothing;
        all[2].found[0].1 = Tagged::Alone;
    });
    assert_eq!(both, Err(vec![("a".to_owned(), Why::NoTag), ("c".to_owned(), Why::Alone)]));
}

#[test]
fn the_members_of_the_tags_are_those_of_the_configuration() {
    let without = three(|all| drop(all.pop()));
    assert_eq!(without, only("c", Why::NotConfigured));
    let with = three(|all| all.push(configured("d", 4, Tagged::Nothing)));
    assert_eq!(with, only("d", Why::NotNamed));
    let renamed = three(|all| all[2].database = "z".to_owned());
    assert_eq!(renamed, only("z", Why::Renamed("c".to_owned())));
    let swapped = three(|all| {
        all[0].found[0].0 = archive(2);
        all[1].found[0].0 = archive(1);
    });
    assert_eq!(swapped, Err(vec![("a".to_owned(), Why::OtherArchive), ("b".to_owned(), Why::OtherArchive)]));
    let elsewhere = three(|all| all[1].found = vec![(archive(9), Tagged::Nothing)]);
    assert_eq!(elsewhere, only("b", Why::OtherArchive));
    let unread = three(|all| all[1].found.clear());
    assert_eq!(unread, only("b", Why::NoTag));
}

#[test]
fn one_of_several_archives_of_a_database_is_enough() {
    let of = |archives: &[u8]| {
        let mut part = part(ONE, 12);
        part.members[1] = member("b", archives);
        Tagged::Part(part)
    };
    let three = |second: Vec<(ArchiveId, Tagged)>| {
        let found = |number| vec![(archive(number), of(&[2, 7]))];
        let all = [("a", found(1)), ("b", second), ("c", found(3))];
        let all: Vec<_> =
            all.into_iter().map(|(name, found)| Configured { database: name.to_owned(), found }).collect();
        judge("shop", &all)
    };
    assert!(three(vec![(archive(2), Tagged::Nothing), (archive(7), of(&[2, 7]))]).is_ok());
    assert!(three(vec![(archive(2), Tagged::Part(part(TWO, 22))), (archive(7), of(&[2, 7]))]).is_ok());
    assert!(three(vec![(archive(2), Tagged::Nothing), (archive(8), Tagged::Nothing)]).is_err());
}

#[test]
fn where_nobody_has_a_part_all_are_at_fault() {
    let all = [configured("a", 1, Tagged::Nothing), configured("b", 2, Tagged::Alone)];
    let faults = judge("shop", &all).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert_eq!((&faults[0].why, &faults[1].why), (&Why::NoTag, &Why::Alone));
}

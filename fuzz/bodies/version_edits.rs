//! VersionEdits and the state that a MANIFEST's records amount to.
//!
//! Asserts: an edit survives encoding; what `apply` accepts and which files are live then are those of a simple model;
//! a refused record changes nothing; the digest is that of a snapshot of the same state; the judgement of a record that
//! is not applied is that of one that is; the description tells the same story.

use std::collections::{BTreeMap, BTreeSet};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber},
    rocks::{
        describe::{EditLine, ManifestDescriber, ManifestLine},
        log_reader::Finality,
        log_writer::LogWriter,
        manifest::{Change, ManifestModel},
        version_edit::{InternalKey, NewFile, VersionEdit},
    },
};

use super::input::Input;

const MOST: u64 = 48;

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let mut model = ManifestModel::new(FileNumber::new(5));
    let mut simple = Simple::default();
    let mut log = Vec::new();
    let mut writer = LogWriter::new(0);
    let mut fits = true;
    for end in 1..=MOST {
        if input.is_empty() {
            break;
        }
        let payload = input.piece();
        writer.append(payload, &mut log);
        let decoded = VersionEdit::decode(payload);
        let line = EditLine::new(0, end, payload);
        assert_eq!(line.error, decoded.as_ref().err().map(ToString::to_string));
        serde_json::to_vec(&line).unwrap();
        let before = (model.digest(), model.applied_to(), files_of(&model));
        let outside = model.would_change_outside_wal(payload);
        let alone = !model.in_atomic_group();
        let blobs = model.live_blob_files().map(|(cf, number, _)| (cf.get(), number.get())).collect();
        let applied = model.apply(payload, end);
        let Ok(edit) = decoded else {
            assert!(applied.is_err() && outside.is_err());
            fits = false;
            continue;
        };
        survives(&edit);
        assert_eq!(applied.is_ok(), simple.apply(&edit, blobs), "record {end}: {edit:?}: {applied:?}");
        match applied {
            Ok(changes) => {
                assert_eq!(files_of(&model), simple.files());
                serde_json::to_vec(&changes).unwrap();
                if alone && !model.in_atomic_group() {
                    assert_eq!(outside, Ok(changes.iter().any(Change::is_outside_wal)), "judged before it was applied");
                }
            }
            Err(_) => {
                fits = false;
                assert_eq!((model.digest(), model.applied_to(), files_of(&model)), before, "a refused record");
            }
        }
    }
    assert_eq!(snapshot(&model).digest(), model.digest(), "the digest of a snapshot");
    if fits {
        described(&log, &model);
    }
}

fn survives(edit: &VersionEdit<'_>) {
    let bytes = edit.encode();
    assert_eq!(VersionEdit::decode(&bytes).as_ref(), Ok(edit));
}

type Files = BTreeMap<(u32, u64), u32>;

fn files_of(model: &ManifestModel) -> Files {
    model.live_files().map(|(cf, number, file)| ((cf.get(), number.get()), file.level)).collect()
}

/// A MANIFEST that begins with the state that `model` has.
fn snapshot(model: &ManifestModel) -> ManifestModel {
    let mut copy = ManifestModel::new(model.file());
    let key = InternalKey::new(&[0; 8]).unwrap();
    for (id, family) in model.column_families() {
        let mut edit = VersionEdit { column_family: *id, ..VersionEdit::default() };
        edit.comparator = family.comparator.as_ref().map(|name| name.as_bytes());
        if *id != ColumnFamilyId::DEFAULT {
            edit.column_family_add = Some(family.name.as_bytes());
        }
        copy.apply(&edit.encode(), 0).expect("a column family");
        let mut edit = VersionEdit { column_family: *id, ..VersionEdit::default() };
        for (number, file) in &family.files {
            let (from, to) = (file.smallest_seqno, file.largest_seqno);
            let mut new = NewFile::new(file.level, *number, file.size, key, key, from, to);
            new.path_id = file.path_id;
            edit.new_files.push(new);
        }
        copy.apply(&edit.encode(), 0).expect("its files");
    }
    copy
}

fn described(log: &[u8], model: &ManifestModel) {
    let mut describer = ManifestDescriber::new(model.file());
    loop {
        match describer.next(&log[describer.offset() as usize..], Finality::Final) {
            Some(ManifestLine::Edit(line)) => assert!(line.error.is_none(), "{line:?}"),
            Some(ManifestLine::Ending(ending)) => {
                assert!(!ending.is_damage());
                break;
            }
            None => panic!("no ending"),
        }
    }
    let state = describer.state();
    assert_eq!(state.digest, model.digest());
    serde_json::to_vec(&state).unwrap();
}

/// Which files are where, and nothing else. Which blob files are obsolete, it is told.
#[derive(Clone, Debug)]
struct Simple {
    families: BTreeMap<u32, Family>,
    blobs: BTreeSet<(u32, u64)>,
    /// Edits of an atomic group, and how many are to follow.
    group: Option<(u32, Box<Simple>)>,
}

#[derive(Clone, Debug, Default)]
struct Family {
    files: BTreeMap<u64, u32>,
}

impl Default for Simple {
    fn default() -> Self {
        Self { families: BTreeMap::from([(0, Family::default())]), blobs: BTreeSet::new(), group: None }
    }
}

impl Simple {
    fn files(&self) -> Files {
        let all = self.families.iter();
        all.flat_map(|(cf, family)| family.files.iter().map(move |(number, level)| ((*cf, *number), *level))).collect()
    }

    /// Whether the edit fits; applies it if so. A group is judged by its last edit: `Model::apply` looks at the others
    /// only then.
    fn apply(&mut self, edit: &VersionEdit<'_>, blobs: BTreeSet<(u32, u64)>) -> bool {
        let follow = edit.in_atomic_group;
        let (mut next, good) = match (&self.group, follow) {
            (Some(_), None) => return false,
            (Some((expected, state)), Some(n)) => {
                if expected.checked_sub(1) != Some(n) {
                    return false;
                }
                ((**state).clone(), true)
            }
            (None, _) => (Self { families: self.families.clone(), blobs, group: None }, true),
        };
        // A state that a misfit has spoiled is one without families.
        let fits = good && next.one(edit);
        match follow {
            Some(n) if n > 0 => {
                if !fits {
                    next.families.clear();
                }
                self.group = Some((n, Box::new(next)));
                true
            }
            _ => {
                if fits {
                    self.families = next.families;
                    self.group = None;
                }
                fits
            }
        }
    }

    fn one(&mut self, edit: &VersionEdit<'_>) -> bool {
        let id = edit.column_family.get();
        if self.families.is_empty() {
            return false;
        }
        if edit.column_family_add.is_some() {
            self.blobs.retain(|(family, _)| *family != id);
            return self.families.insert(id, Family::default()).is_none();
        }
        if edit.column_family_drop {
            return id != 0 && self.families.remove(&id).is_some();
        }
        let Some(family) = self.families.get_mut(&id) else { return false };
        let blobs = &mut self.blobs;
        edit.blob_file_additions.iter().all(|blob| blobs.insert((id, blob.number.get())))
            && edit.deleted_files.iter().all(|gone| family.files.remove(&gone.number.get()) == Some(gone.level))
            && edit.new_files.iter().all(|new| family.files.insert(new.number.get(), new.level).is_none())
    }
}

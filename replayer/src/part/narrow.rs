//! From a plan of the whole database to one of a part.
//!
//! Owns: which column families are meant, every reason for which the part cannot be restored by itself, and what it spares.
//! Reads the base's document once more, whose MANIFEST tells which keys its files have.

use std::{borrow::Cow, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, schema::BaseDocument},
    ids::ColumnFamilyId,
    rocks::{
        file_name::{self, FileKind},
        manifest::ManifestModel,
        options_file::OptionsFile,
    },
};

use super::{Part, PlannedFamily, PlannedPart, files::Taken};
use crate::{
    plan::{
        Note, NoteKind, PlanOptions, RestorePlan,
        engine::{Engine, EngineChoice},
    },
    restore::{base_of, manifest::Manifest},
    target::Target,
};

/// The comparator that orders keys byte by byte.
const BYTEWISE: &str = "leveldb.BytewiseComparator";

/// How the whole is planned of which a part is wanted: flushes are of all keys, so the log is replayed.
pub(crate) fn options<'a>(options: &'a PlanOptions, target: &Target) -> Result<Cow<'a, PlanOptions>> {
    match (&options.part, options.engine) {
        (None, _) | (Some(_), EngineChoice::Native | EngineChoice::Bulk) => Ok(Cow::Borrowed(options)),
        (Some(_), EngineChoice::Auto) => {
            Ok(Cow::Owned(PlanOptions { engine: EngineChoice::Native, ..options.clone() }))
        }
        (Some(_), EngineChoice::Flush | EngineChoice::FlushAndBulk) => {
            Err(Error::new(Code::EngineUnusable, "planning a restore to")
                .on(target)
                .with("a part is wanted", "shipped flushes hold what is beside it, too"))
        }
    }
}

/// The plan for a part of what `plan` restores.
pub(crate) async fn narrow(archive: &Archive, plan: RestorePlan, wanted: Option<&Part>) -> Result<RestorePlan> {
    let Some(wanted) = wanted else { return Ok(plan) };
    let base = base_of(archive, &plan).await?;
    narrowed(plan, &base, wanted)
}

fn narrowed(mut plan: RestorePlan, base: &BaseDocument, wanted: &Part) -> Result<RestorePlan> {
    let refused = |why: &str| {
        Error::new(Code::PartUnusable, "planning a part of a restore to").on(&plan.target).with("why not", why)
    };
    if !plan.ingestions.is_empty() {
        return Err(refused("ingestions are repeated on the way, and each of them whole or not at all"));
    }
    if plan.write_policy.is_some() {
        return Err(refused("the log has prepared transactions, of which no part can be taken"));
    }
    let mut manifest = manifest_of(base)?;
    manifest.append_families(&plan.column_families, 0)?;
    let families = families(&manifest.model, wanted).map_err(|e| e.on(&plan.target))?;
    let keys = (!wanted.keys.is_all()).then(|| wanted.keys.clone());
    if keys.is_some() {
        if plan.two_phase {
            return Err(refused("keys are chosen, and its server may count a batch as one number (two-phase commit)"));
        }
        can_be_cut(base, &manifest.model, &families).map_err(|e| e.on(&plan.target))?;
    }
    let mut part =
        PlannedPart { families, keys, files_left_out: 0, bytes_left_out: 0, latest_sequence: plan.position.sequence };
    let taken = Taken::of(&mut manifest, &part, "")?;
    can_hide(base, &taken, &part).map_err(|e| e.on(&plan.target))?;
    for file in base.files.iter().filter(|file| !taken.needs(file)) {
        part.files_left_out += 1;
        part.bytes_left_out += file.size;
    }
    plan.download_bytes = plan.download_bytes.saturating_sub(part.bytes_left_out);
    plan.disk_bytes = plan.disk_bytes.saturating_sub(part.bytes_left_out);
    plan.replayed_disk_bytes = plan.replayed_disk_bytes.saturating_sub(part.bytes_left_out);
    if let Some((latest, _)) = taken.hiding(plan.position.sequence)? {
        part.latest_sequence = latest;
    }
    plan.notes.push(Note { kind: NoteKind::Part, text: text(&part) });
    if plan.engine.name == Engine::Native {
        "a part is replayed from the log".clone_into(&mut plan.engine.reason);
    }
    plan.part = Some(part);
    Ok(plan)
}

fn text(part: &PlannedPart) -> String {
    let beside = match part.keys {
        Some(_) => {
            " Table files come whole: what they hold of other keys is deleted behind the last record, which raises the latest sequence number; its bytes go with the next compactions, and who reads with ignore_range_deletions still sees it."
        }
        None => "",
    };
    format!(
        "a part is a database of its own, with an identity of its own: archive it into an archive of its own, and do not put it in the place of the whole.{beside}"
    )
}

fn manifest_of(base: &BaseDocument) -> Result<Manifest> {
    let name = file_name::manifest(base.manifest.file);
    let damaged = || Error::new(Code::ObjectDamaged, "reading the base's file").on(&name).with("base", &base.id);
    let inline = base.inline.iter().find(|inline| Path::new(&inline.name) == Path::new(&name)).ok_or_else(damaged)?;
    Manifest::read(base.manifest.file, STANDARD.decode(&inline.content).map_err(|e| damaged().because(e))?)
}

/// The column families at the target that are meant.
fn families(model: &ManifestModel, wanted: &Part) -> Result<Vec<PlannedFamily>> {
    let all =
        || model.column_families().iter().map(|(id, family)| PlannedFamily { id: *id, name: family.name.to_string() });
    if let Some(unknown) = wanted.families.iter().find(|name| !all().any(|family| family.name == **name)) {
        let mut e = Error::new(Code::PartUnusable, "finding column families at").with("there is none called", unknown);
        for family in all().take(50) {
            e = e.with("there is", &family.name);
        }
        return Err(e);
    }
    Ok(all().filter(|family| wanted.families.is_empty() || wanted.families.contains(&family.name)).collect())
}

fn uncut(family: &PlannedFamily, why: &'static str, what: &str) -> Error {
    Error::new(Code::PartUnusable, "choosing keys of column family")
        .with("column family", &family.name)
        .with(why, what)
        .hint("take the column family whole (--cf without --prefix and --range), or name others")
}

/// Whether some keys of the column families can be told from the others.
fn can_be_cut(base: &BaseDocument, model: &ManifestModel, families: &[PlannedFamily]) -> Result<()> {
    for family in families {
        let comparator = comparator(base, model, family.id);
        if comparator != BYTEWISE {
            return Err(uncut(family, "its comparator orders keys otherwise than byte by byte", &comparator));
        }
    }
    Ok(())
}

/// Whether range deletions can hide what files hold beside the part.
fn can_hide(base: &BaseDocument, taken: &Taken, part: &PlannedPart) -> Result<()> {
    let options = newest_options(base);
    for family in part.families.iter().filter(|family| taken.hides_in(family.id)) {
        let settings = options.as_ref().and_then(|options| options.column_family(&family.name).ok().flatten());
        let form = settings.and_then(|settings| settings.table_factory);
        if form.as_deref() != Some("BlockBasedTable") {
            let form = form.as_deref().unwrap_or("of which form, the base does not tell");
            return Err(uncut(family, "its tables must be able to hold the deletion of a range, and are", form));
        }
    }
    Ok(())
}

fn comparator(base: &BaseDocument, model: &ManifestModel, id: ColumnFamilyId) -> String {
    let named = model.column_family(id).and_then(|family| family.comparator.as_ref()).map(ToString::to_string);
    let described = || base.column_families.iter().find(|family| family.id == id).map(|f| f.comparator.clone());
    named.or_else(described).filter(|name| !name.is_empty()).unwrap_or_else(|| BYTEWISE.to_owned())
}

/// What cannot be read is refused where it is laid down.
fn newest_options(base: &BaseDocument) -> Option<OptionsFile> {
    let options = base.inline.iter().filter_map(|file| match file_name::parse(&file.name) {
        Some(FileKind::Options(number)) => Some((number, file)),
        _ => None,
    });
    let (_, newest) = options.max_by_key(|(number, _)| *number)?;
    OptionsFile::parse(&String::from_utf8(STANDARD.decode(&newest.content).ok()?).ok()?).ok()
}

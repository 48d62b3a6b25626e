//! `pitr inspect manifest`.

use pitr_archive::{
    Result,
    rocks::describe::{EditLine, FileLine, ManifestDescriber, ManifestLine, ManifestState},
};
use serde::Serialize;

use super::{Sheet, number_of, verdict, window::Window};
use crate::{
    args::tools::InspectArgs,
    context::Context,
    output::{
        Verdict,
        table::{Align, Table},
        text,
    },
};

/// The line after the last edit in JSON.
#[derive(Serialize)]
struct State {
    kind: &'static str,
    #[serde(flatten)]
    state: ManifestState,
}

pub fn run(context: &Context, args: &InspectArgs) -> Result<Verdict> {
    let mut window = Window::open(&args.file)?;
    let mut describer = ManifestDescriber::new(number_of(&args.file));
    let mut sheet = Sheet::new(context, args);
    let mut result = Verdict::Done;
    if !sheet.out.is_json() {
        sheet.lines.text(&sheet.out.heading("    OFFSET  EDIT"))?;
    }
    'file: loop {
        let (bytes, finality) = window.from(describer.offset());
        match describer.next(bytes, finality) {
            Some(line) => {
                if matches!(line, ManifestLine::Edit(_)) && !sheet.admit() {
                    break 'file;
                }
                if show(&mut sheet, &line)? == Verdict::Damage {
                    result = Verdict::Damage;
                }
            }
            None if !window.grow(describer.offset())? => break 'file,
            None => {}
        }
    }
    show_state(&mut sheet, describer.state())?;
    sheet.lines.finish()?;
    Ok(result)
}

fn show(sheet: &mut Sheet<'_>, line: &ManifestLine) -> Result<Verdict> {
    if sheet.out.is_json() {
        sheet.lines.json(line)?;
        return Ok(match line {
            ManifestLine::Ending(ending) => verdict(ending),
            ManifestLine::Edit(edit) if edit.error.is_some() => Verdict::Damage,
            ManifestLine::Edit(_) => Verdict::Done,
        });
    }
    match line {
        ManifestLine::Ending(ending) => sheet.ending(ending),
        ManifestLine::Edit(edit) => show_edit(sheet, edit),
    }
}

/// The names of `ldb manifest_dump --verbose`, one edit on one line, its files on lines of their own.
fn show_edit(sheet: &mut Sheet<'_>, edit: &EditLine) -> Result<Verdict> {
    let mut said = vec![format!("ColumnFamily {}", edit.column_family)];
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            said.push(format!("{name} {value}"));
        }
    };
    say("DbId", edit.db_id.as_ref().map(ToString::to_string));
    say("ColumnFamilyAdd", edit.column_family_add.as_ref().map(ToString::to_string));
    say("ColumnFamilyDrop", edit.column_family_drop.then(String::new));
    say("Comparator", edit.comparator.as_ref().map(ToString::to_string));
    say("LogNumber", edit.log_number.map(|n| n.to_string()));
    say("PrevLogNumber", edit.prev_log_number.map(|n| n.to_string()));
    say("NextFileNumber", edit.next_file_number.map(|n| n.to_string()));
    say("MinLogNumberToKeep", edit.min_log_number_to_keep.map(|n| n.to_string()));
    say("LastSeq", edit.last_sequence.map(|n| n.to_string()));
    say("MaxColumnFamily", edit.max_column_family.map(|n| n.to_string()));
    say("AtomicGroup, remaining", edit.atomic_group_remaining.map(|n| n.to_string()));
    say("WalDeletion", edit.wal_deletion.map(|n| n.to_string()));
    for wal in &edit.wal_additions {
        let size = wal.synced_size.map(|size| format!(" synced {size} B")).unwrap_or_default();
        say("WalAddition", Some(format!("{}{size}", wal.number)));
    }
    if !edit.unknown_tags.is_empty() {
        say("tags of later versions", Some(format!("{:?}", edit.unknown_tags)));
    }
    sheet.lines.text(&format!("{:>10}  {}", edit.offset, said.join("; ")))?;
    for file in &edit.deleted_files {
        sheet.lines.text(&format!("            DeleteFile L{} {:06}", file.level, file.number.get()))?;
    }
    for file in &edit.added_files {
        let line = added(sheet, file);
        sheet.lines.text(&line)?;
    }
    for blob in &edit.blob_file_additions {
        sheet.lines.text(&format!(
            "            BlobFileAddition {:06}  {} values, {}",
            blob.number.get(),
            blob.count,
            text::bytes(blob.bytes)
        ))?;
    }
    for blob in &edit.blob_file_garbages {
        sheet.lines.text(&format!(
            "            BlobFileGarbage {:06}  {} values, {}",
            blob.number.get(),
            blob.count,
            text::bytes(blob.bytes)
        ))?;
    }
    match &edit.error {
        None => Ok(Verdict::Done),
        Some(error) => {
            let line = sheet.out.bad(&format!("{:>10}  DAMAGED: {error}", edit.offset));
            sheet.lines.text(&line)?;
            Ok(Verdict::Damage)
        }
    }
}

fn added(sheet: &Sheet<'_>, file: &FileLine) -> String {
    format!(
        "            AddFile L{} {:06}  {}, sequence {}..{}, keys {} .. {}",
        file.level,
        file.number.get(),
        text::bytes(file.file_size),
        file.smallest_seqno,
        file.largest_seqno,
        sheet.value(&file.smallest),
        sheet.value(&file.largest)
    )
}

/// The state that the edits amount to.
fn show_state(sheet: &mut Sheet<'_>, state: ManifestState) -> Result<()> {
    if sheet.out.is_json() {
        return sheet.lines.json(&State { kind: "state", state });
    }
    let columns = [
        ("id", Align::Right),
        ("column family", Align::Left),
        ("comparator", Align::Left),
        ("log number", Align::Right),
        ("files by level", Align::Left),
        ("size", Align::Right),
    ];
    let mut table = Table::new(sheet.out, &columns);
    for family in &state.column_families {
        let levels: Vec<_> = family.levels.iter().map(|l| format!("L{}:{}", l.level, l.files)).collect();
        let blobs = if family.blob_files == 0 { String::new() } else { format!(" blobs:{}", family.blob_files) };
        table.row([
            family.id.to_string(),
            family.name.to_string(),
            family.comparator.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            family.log_number.to_string(),
            format!("{}{blobs}", if levels.is_empty() { "-".to_owned() } else { levels.join(" ") }),
            text::bytes(family.levels.iter().map(|l| l.bytes).sum::<u64>().saturating_add(family.blob_bytes)),
        ]);
    }
    let next = state.next_file_number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let heading = format!(
        "\nState after the last edit: LastSequence {}, next file {next}, first WAL needed {}, id {}",
        state.last_sequence,
        state.first_wal_needed,
        state.db_id.as_deref().unwrap_or("?")
    );
    let heading = sheet.out.heading(&heading);
    sheet.lines.text(&heading)?;
    sheet.lines.text(&table.to_string())
}

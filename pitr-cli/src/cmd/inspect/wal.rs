//! `pitr inspect wal`.

use std::{fs::File, io::Read, path::Path};

use pitr_archive::{
    Result, error,
    ids::FileNumber,
    rocks::describe::{BatchLine, OpLine, Operations, WalDescriber, WalLine},
};

use super::{Sheet, kind_of, number_of, verdict, window::Window};
use crate::{
    args::tools::InspectArgs,
    context::Context,
    output::{Verdict, text},
};

pub fn run(context: &Context, args: &InspectArgs) -> Result<Verdict> {
    let number = match kind_of(&args.file) {
        Some(_) => number_of(&args.file),
        // A copy under another name: recyclable headers tell the number that the log was written as.
        None => number_in_header(&args.file)?,
    };
    let mut window = Window::open(&args.file)?;
    let mut describer = WalDescriber::new(number, Operations::Shown);
    let mut sheet = Sheet::new(context, args);
    let mut result = Verdict::Done;
    if !sheet.out.is_json() {
        sheet.lines.text(&sheet.out.heading("    OFFSET  WRITE BATCH, THEN ITS OPERATIONS (cf = column family id)"))?;
    }
    'file: loop {
        let (bytes, finality) = window.from(describer.offset());
        match describer.next(bytes, finality) {
            Some(line) => {
                if !matches!(line, WalLine::Ending(_)) && !sheet.admit() {
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
    sheet.lines.finish()?;
    Ok(result)
}

fn show(sheet: &mut Sheet<'_>, line: &WalLine) -> Result<Verdict> {
    if sheet.out.is_json() {
        sheet.lines.json(line)?;
        return Ok(match line {
            WalLine::Ending(ending) => verdict(ending),
            WalLine::Batch(batch) if batch.error.is_some() => Verdict::Damage,
            _ => Verdict::Done,
        });
    }
    match line {
        WalLine::Metadata { offset, metadata, .. } => {
            let said = text::name(metadata);
            sheet.lines.text(&format!("{offset:>10}  about the log: {said}"))?;
            Ok(Verdict::Done)
        }
        WalLine::Batch(batch) => show_batch(sheet, batch),
        WalLine::Ending(ending) => sheet.ending(ending),
    }
}

/// The columns of `ldb dump_wal`, named, and an operation a line.
fn show_batch(sheet: &mut Sheet<'_>, batch: &BatchLine) -> Result<Verdict> {
    let sequence = batch.sequence.map_or_else(|| "?".to_owned(), |s| s.to_string());
    let count = batch.count.map_or_else(|| "?".to_owned(), |n| n.to_string());
    sheet.lines.text(&format!("{:>10}  sequence {sequence}, count {count}, {} B", batch.offset, batch.byte_size))?;
    for op in &batch.ops {
        let line = format!("            {}", operation(sheet, op));
        sheet.lines.text(&line)?;
    }
    match &batch.error {
        None => Ok(Verdict::Done),
        Some(error) => {
            let line = sheet.out.bad(&format!("{:>10}  DAMAGED: {error}", batch.offset));
            sheet.lines.text(&line)?;
            Ok(Verdict::Damage)
        }
    }
}

/// `PUT cf 2  key = value`.
pub(super) fn operation(sheet: &Sheet<'_>, op: &OpLine) -> String {
    let mut line = op.op.to_owned();
    if let Some(cf) = op.cf {
        line += &format!(" cf {cf}");
    }
    if let Some(key) = &op.key {
        line += &format!("  {key}");
    }
    if let Some(end) = &op.end_key {
        line += &format!(" .. {end}");
    }
    if let Some(value) = &op.value {
        line += &format!(" = {}", sheet.value(value));
    }
    if let Some(xid) = &op.xid {
        line += &format!("  transaction {xid}");
    }
    if let Some(timestamp) = &op.timestamp {
        line += &format!("  timestamp {timestamp}");
    }
    if let Some(time) = op.unix_time {
        line += &format!("  written @{time}");
    }
    line
}

/// Layout of a recyclable header (RocksDB's `db/log_format.h`): checksum 4, length 2, type 1, low 32 bits of the number.
fn number_in_header(path: &Path) -> Result<FileNumber> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(|e| error::io("opening", path, e))?;
    file.take(11).read_to_end(&mut header).map_err(|e| error::io("reading", path, e))?;
    Ok(match (header.get(6), header.last_chunk::<4>()) {
        (Some(5..=8 | 11 | 131), Some(number)) if header.len() == 11 => {
            FileNumber::new(u32::from_le_bytes(*number).into())
        }
        _ => FileNumber::default(),
    })
}

use super::*;
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        log_reader::Finality,
        log_writer::LogWriter,
        version_edit::VersionEdit,
        write_batch::{Op, WriteBatchBuilder},
    },
};

fn wal() -> Vec<u8> {
    let mut builder = WriteBatchBuilder::new(SequenceNumber::new(7));
    builder.push(&Op::Put { cf: ColumnFamilyId::new(2), key: b"k\xff", value: "wörld".as_bytes() });
    builder.push(&Op::DeleteRange { cf: ColumnFamilyId::DEFAULT, begin: b"a", end: b"b" });
    let mut bytes = Vec::new();
    let mut writer = LogWriter::new(0);
    writer.append_timestamp_sizes(&[(ColumnFamilyId::new(2), 8)], &mut bytes);
    writer.append(&builder.finish(), &mut bytes);
    writer.append(b"no batch", &mut bytes);
    bytes
}

#[test]
fn a_wal_is_described_to_its_end() {
    let bytes = wal();
    let mut describer = WalDescriber::new(FileNumber::new(4), Operations::Shown);
    let lines: Vec<_> = std::iter::from_fn(|| {
        let at = usize::try_from(describer.offset()).unwrap();
        describer.next(&bytes[at..], Finality::Final)
    })
    .collect();
    let json = serde_json::to_value(&lines).unwrap();
    assert_eq!(json[0]["metadata"]["timestamp-sizes"], serde_json::json!([[2, 8]]));
    assert_eq!(json[1]["kind"], "batch");
    assert_eq!(
        (&json[1]["sequence"], &json[1]["count"], &json[1]["sequence_advance"]),
        (&7.into(), &2.into(), &2.into())
    );
    assert_eq!(
        json[1]["ops"][0],
        serde_json::json!({"op": "PUT", "cf": 2, "key": {"hex": "6bff"}, "value": {"text": "wörld"}})
    );
    assert_eq!(
        json[1]["ops"][1],
        serde_json::json!({"op": "DELETE_RANGE", "cf": 0, "key": {"text": "a"}, "end_key": {"text": "b"}})
    );
    assert!(json[2]["error"].as_str().unwrap().contains("shorter than its header"), "{json}");
    assert_eq!((&json[3]["kind"], &json[3]["verdict"]), (&"ending".into(), &"end".into()));
    assert_eq!(json[3]["offset"].as_u64(), Some(bytes.len() as u64));
}

/// Read in small pieces, as a command does with a large file.
#[test]
fn a_description_does_not_depend_on_how_the_file_is_read() {
    let bytes = wal();
    let whole = describe_in_pieces(&bytes, bytes.len());
    for piece in [1, 7, 20] {
        assert_eq!(describe_in_pieces(&bytes, piece), whole);
    }
}

fn describe_in_pieces(bytes: &[u8], piece: usize) -> Vec<WalLine> {
    let mut describer = WalDescriber::new(FileNumber::new(4), Operations::Summarised);
    let mut lines = Vec::new();
    let mut have = 0;
    loop {
        have = (have + piece).min(bytes.len());
        let finality = if have == bytes.len() { Finality::Final } else { Finality::Growing };
        while let Some(line) = describer.next(&bytes[usize::try_from(describer.offset()).unwrap()..have], finality) {
            lines.push(line);
        }
        if have == bytes.len() {
            return lines;
        }
    }
}

#[test]
fn a_manifest_is_described_with_its_state() {
    let mut bytes = Vec::new();
    let mut writer = LogWriter::new(0);
    let add = VersionEdit {
        column_family: ColumnFamilyId::new(1),
        column_family_add: Some(b"users"),
        comparator: Some(b"bytewise"),
        log_number: Some(FileNumber::new(9)),
        ..VersionEdit::default()
    };
    let unknown = VersionEdit { column_family: ColumnFamilyId::new(8), ..VersionEdit::default() };
    writer.append(&add.encode(), &mut bytes);
    writer.append(&unknown.encode(), &mut bytes);
    bytes.truncate(bytes.len() - 1);
    let mut describer = ManifestDescriber::new(FileNumber::new(5));
    let mut lines = Vec::new();
    while let Some(line) = describer.next(&bytes[usize::try_from(describer.offset()).unwrap()..], Finality::Final) {
        lines.push(line);
    }
    let json = serde_json::to_value(&lines).unwrap();
    assert_eq!(json[0]["column_family_add"], "users");
    assert_eq!(json[0]["changes"][0]["change"], "column-family-added");
    assert!(json[0].get("last_sequence").is_none(), "absent fields are left out");
    assert_eq!(json[1]["verdict"], "end");
    let state = describer.state();
    assert_eq!((state.manifest.get(), state.column_families.len()), (5, 2));
    assert_eq!(state.column_families[1].log_number.get(), 9);
}

#[test]
fn an_edit_that_does_not_fit_is_described_and_said_to() {
    let mut bytes = Vec::new();
    let unknown = VersionEdit { column_family: ColumnFamilyId::new(8), ..VersionEdit::default() };
    LogWriter::new(0).append(&unknown.encode(), &mut bytes);
    let mut describer = ManifestDescriber::new(FileNumber::new(5));
    let Some(ManifestLine::Edit(line)) = describer.next(&bytes, Finality::Final) else { panic!("an edit") };
    assert!(line.error.unwrap().contains("column family 8 does not exist"));
}

#[test]
fn what_a_terminal_would_act_upon_is_shown_in_hexadecimal() {
    assert_eq!(Shown::new(b"plain"), Shown::Text("plain".into()));
    assert_eq!(Shown::new(b""), Shown::Text(String::new()));
    for bytes in [&b"\x1b[31m"[..], b"a\nb", b"\xff", "\u{202e}x".as_bytes(), b"\0"] {
        assert!(matches!(Shown::new(bytes), Shown::Hex(_)), "{bytes:?}");
    }
    assert_eq!(Shown::new(b"\x01\xab").to_string(), "0x01ab");
}

use proptest::prelude::*;

use super::*;

fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    entry.encode_into(&mut out).unwrap();
    out
}

#[test]
fn golden_bytes_of_a_record_and_an_event() {
    let record = Record { wal: FileNumber::new(7), start: 0x10, end: 0x30, payload: Bytes::from_static(b"hi") };
    let mut expected = vec![1]; // kind: record
    expected.extend([2, 0, 0, 0]); // payload length
    expected.extend([7, 0, 0, 0, 0, 0, 0, 0]); // WAL number
    expected.extend([0x10, 0, 0, 0, 0, 0, 0, 0]); // start offset
    expected.extend([0x20, 0, 0, 0, 0, 0, 0, 0]); // span: end - start
    expected.extend(b"hi"); // payload
    assert_eq!(encode(&Entry::Record(record)), expected);

    let event = Event::WalStarted { wal: FileNumber::new(7) };
    let json = br#"{"kind":"wal-started","wal":7}"#;
    let mut expected = vec![2]; // kind: event
    expected.extend([json.len() as u8, 0, 0, 0]); // JSON length
    expected.extend(json);
    assert_eq!(encode(&Entry::Event(event)), expected);
}

#[test]
fn an_event_in_another_form_or_of_another_kind_is_refused() {
    let decode = |json: &str| {
        let mut bytes = vec![2];
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(json.as_bytes());
        Entry::decode(&mut bytes.into())
    };
    assert!(decode(r#"{"kind":"wal-started","wal":7}"#).is_ok());
    assert!(matches!(decode(r#"{"kind":"wal-started", "wal":7}"#), Err(EntryError::NotCanonical)));
    assert!(matches!(decode(r#"{"wal":7,"kind":"wal-started"}"#), Err(EntryError::NotCanonical)));
    assert!(matches!(decode(r#"{"kind":"wal-started","wal":7,"x":1}"#), Err(EntryError::Event(_))));
    assert!(matches!(decode(r#"{"kind":"wal-exploded","wal":7}"#), Err(EntryError::Event(_))));
}

#[test]
fn impossible_lengths_are_refused_before_they_are_believed() {
    let mut bytes = vec![1, 0xff, 0xff, 0xff, 0xff];
    bytes.extend([0; 24]);
    assert!(matches!(Entry::decode(&mut bytes.into()), Err(EntryError::TooLong { .. })));
    let record = Record { wal: FileNumber::new(1), start: 5, end: 5, payload: Bytes::new() };
    assert!(matches!(record.head(), Err(EntryError::Offsets { .. })));
    let mut wrapping = vec![1, 0, 0, 0, 0];
    wrapping.extend([0; 8]);
    wrapping.extend([0xff; 8]);
    wrapping.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(Entry::decode(&mut wrapping.into()), Err(EntryError::Offsets { .. })));
}

#[test]
fn truncation_anywhere_is_refused() {
    for entry in [
        Entry::Record(Record { wal: FileNumber::new(7), start: 1, end: 9, payload: Bytes::from_static(b"payload") }),
        Entry::Event(Event::WalStarted { wal: FileNumber::new(7) }),
    ] {
        let bytes = Bytes::from(encode(&entry));
        for len in 0..bytes.len() {
            assert!(
                matches!(Entry::decode(&mut bytes.slice(..len)), Err(EntryError::Short { .. })),
                "{entry:?} cut at {len}"
            );
        }
    }
}

proptest! {
    #[test]
    fn records_round_trip_and_leave_what_follows(
        wal: u64, start in 0..u64::MAX / 2, span in 1..u64::MAX / 2, payload: Vec<u8>, after: Vec<u8>,
    ) {
        let entry = Entry::Record(Record { wal: FileNumber::new(wal), start, end: start + span, payload: payload.into() });
        let mut bytes = encode(&entry);
        bytes.extend(&after);
        let mut bytes = Bytes::from(bytes);
        prop_assert_eq!(Entry::decode(&mut bytes).unwrap(), entry);
        prop_assert_eq!(&bytes[..], &after[..]);
    }

    #[test]
    fn any_bytes_are_an_entry_or_an_error(bytes: Vec<u8>) {
        let mut rest = Bytes::from(bytes.clone());
        if let Ok(entry) = Entry::decode(&mut rest) {
            let used = bytes.len() - rest.len();
            prop_assert_eq!(encode(&entry), &bytes[..used]);
        }
    }
}

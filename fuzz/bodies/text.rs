//! Texts: URLs of archives, object keys, times, names of files and tags, identifiers.
//!
//! Asserts: what is read and written again reads the same; a URL's secret is in no error; a key stays below its archive;
//! a time is read as it is written.

use chrono::{DateTime, SecondsFormat, Utc};
use pitr_archive::{
    base::FileIdentity,
    code::Code,
    ids::{ArchiveId, BaseId, ContentHash, FileNumber, SequenceNumber},
    object_key::ObjectKey,
    rocks::file_name::{self, FileKind},
    store::url,
    tag::Name,
    time_text::{self, LocalZone},
};

use super::input::{Input, refused};

const SECRET: &str = "hunter2.hunter2";

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.u8();
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match which % 6 {
        0 => location(text),
        1 => secret(text),
        2 => key(text),
        3 => time(text),
        4 => file(text),
        _ => identifiers(text),
    }
}

fn location(text: &str) {
    match url::parse(text) {
        Ok(location) => {
            let shown = location.to_string();
            // A directory's name may have what `file:` takes for options.
            if !shown.contains('?') && !shown.contains('\u{fffd}') {
                let again = url::parse(&shown).expect("what is shown can be given");
                assert_eq!(again.to_string(), shown);
            }
        }
        Err(e) => refused(&e, &[Code::StoreUrl, Code::StoreOption]),
    }
}

/// `text` has a `~` where somebody typed a password.
fn secret(text: &str) {
    for url in [
        text.replace('~', &format!("user:{SECRET}@")),
        text.replace('~', &format!("?secret_access_key={SECRET}&")),
        text.replace('~', &format!("?sig={SECRET}")),
    ] {
        if let Err(e) = url::parse(&url)
            && url.split_once(SECRET).is_some_and(|(before, _)| before.contains("://"))
            && !url.starts_with("file:")
            && !url.starts_with(['/', '.'])
        {
            let said = format!("{e} {}", e.hint_text());
            assert!(!said.contains(SECRET), "{url:?}: {said}");
        }
    }
}

fn key(text: &str) {
    let Some(key) = ObjectKey::parse(text) else { return };
    assert_eq!(key.as_str(), text);
    assert!(!text.starts_with('/') && text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    let _ = key.stem();
    for (number, made) in [
        key.segment_ordinal().map(|n| (n.get(), format!("{n:020}"))),
        key.manifest_number().map(|n| (n.get(), format!("{n:020}"))),
        key.epoch_number().map(|n| (n.get(), format!("{n:020}"))),
    ]
    .into_iter()
    .flatten()
    {
        assert!(made.parse() == Ok(number));
    }
}

fn time(text: &str) {
    let now: DateTime<Utc> = "2026-11-20T13:33:00Z".parse().unwrap();
    let zone = LocalZone::named("Europe/Berlin").or_else(|_| LocalZone::named("UTC")).unwrap();
    match time_text::parse(text, now, &zone) {
        Ok(at) => {
            let written = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
            // Years beyond four digits have another form, which nobody is asked to type.
            if written.len() == "2026-11-20T13:33:00.000000000Z".len() && !written.starts_with(['-', '+']) {
                assert_eq!(time_text::parse(&written, now, &zone), Ok(at), "{text:?} is {written}");
            }
        }
        Err(e) => drop(e.to_string()),
    }
}

fn file(text: &str) {
    match file_name::parse(text) {
        Some(FileKind::Wal(n)) => assert_eq!(file_name::parse(&file_name::wal(n)), Some(FileKind::Wal(n))),
        Some(FileKind::Sst(n)) => assert_eq!(file_name::parse(&file_name::sst(n)), Some(FileKind::Sst(n))),
        Some(FileKind::Blob(n)) => assert_eq!(file_name::parse(&file_name::blob(n)), Some(FileKind::Blob(n))),
        Some(FileKind::Options(n)) => {
            assert_eq!(file_name::parse(&file_name::options(n)), Some(FileKind::Options(n)));
        }
        Some(FileKind::Manifest(n)) => {
            assert_eq!(file_name::parse_current(format!("{text}\n").as_bytes()), Ok(n));
        }
        _ => assert!(file_name::parse_current(format!("{text}\n").as_bytes()).is_err()),
    }
    if let Ok(id) = file_name::parse_identity(text.as_bytes()) {
        assert!(!id.is_empty() && id.len() <= 256);
    }
}

fn identifiers(text: &str) {
    if let Ok(id) = text.parse::<ArchiveId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(id) = text.parse::<ContentHash>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(id) = text.parse::<BaseId>() {
        assert_eq!(id.to_string(), text);
        assert!(ObjectKey::parse(ObjectKey::base(&id).as_str()).is_some());
    }
    // A name that a document gives must be a name, or it is none.
    if let Ok(id) = serde_json::from_value::<BaseId>(text.into()) {
        assert!(id.to_string().parse() == Ok(id), "{text:?} is taken for a base's name");
    }
    if let Ok(number) = text.parse::<FileNumber>() {
        assert_eq!(number.to_string().parse(), Ok(number));
    }
    if let Ok(number) = text.parse::<SequenceNumber>() {
        assert_eq!(number.to_string().parse(), Ok(number));
    }
    match Name::parse(text) {
        Ok(name) => assert_eq!(name.as_str(), text),
        Err(e) => refused(&e, &[Code::TagMalformed]),
    }
    if let Some(identity) = FileIdentity::from_object(text) {
        let key = identity.key();
        assert_eq!(ObjectKey::parse(key.as_str()), Some(key));
    }
}

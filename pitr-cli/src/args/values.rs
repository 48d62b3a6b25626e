//! Values with a text form of their own: durations, sizes, keys, path mappings.
//!
//! Owns: what is accepted, so that a misspelt value is refused before anything happens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU64,
    path::PathBuf,
    time::Duration,
};

/// `250ms`, `1s`, `5m`, `2h`, `1d`: a whole number and a unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a number and a unit: 250ms, 1s, 5m, 2h".to_owned())?;
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => return Err(format!("{other:?} is not a unit: use ms, s, m, h or d")),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// A duration above zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|d| if d.is_zero() { Err("must be above zero".to_owned()) } else { Ok(d) })
}

/// `8MiB`, `64kB`, `1048576`.
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>().map(|size| size.as_u64())
}

/// So many bytes a second, above zero: `10MiB`.
pub fn speed(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(size(text)?).ok_or_else(|| "must be above zero".to_owned())
}

/// A number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=64) => Ok(threads),
        _ => Err("from 1 to 64".to_owned()),
    }
}

/// The size of a segment: large enough to hold something, small enough to be held in memory.
pub fn segment_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes @ 4_096..=268_435_456 => Ok(bytes),
        _ => Err("from 4KiB to 256MiB".to_owned()),
    }
}

/// `9598` or `:9598` on loopback, `127.0.0.1:9598`, `[::1]:9598`, `localhost:9598`: numbers, so that nobody is asked for a name.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse()
        .map_err(|_| "write a port (on loopback) or an address and a port: 9598, 127.0.0.1:9598, [::1]:9598".to_owned())
}

/// A key as people type it: text, in which `\xNN` stands for a byte that cannot be typed and `\\` for a backslash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBytes(pub Vec<u8>);

/// The bytes that `text` means. Both forms in which keys are printed are taken: with escapes (`pitr log`), and `0x` with
/// nothing but hexadecimal digits behind it (`pitr inspect`, `ldb`).
pub fn key(text: &str) -> Result<KeyBytes, String> {
    if let Some(bytes) = text.strip_prefix("0x").and_then(hex) {
        return Ok(KeyBytes(bytes));
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match bytes.next() {
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => out.push(high * 16 + low),
                _ => return Err("after \\x come two hexadecimal digits".to_owned()),
            },
            _ => return Err("a backslash is written \\\\, other bytes \\xNN".to_owned()),
        }
    }
    Ok(KeyBytes(out))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|d| !d.is_empty() && d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// `OLD=NEW`: a directory of the source and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// As the source's OPTIONS name it.
    pub old: String,
    /// Absolute.
    pub new: PathBuf,
}

/// A path mapping; both sides absolute.
pub fn mapping(text: &str) -> Result<Mapping, String> {
    let (old, new) = text.split_once('=').ok_or_else(|| "write OLD=NEW".to_owned())?;
    if !old.starts_with('/') || !new.starts_with('/') {
        return Err("both paths must be absolute".to_owned());
    }
    Ok(Mapping { old: old.to_owned(), new: PathBuf::from(new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "1", "s", "1.5s", "-1s", "99999999999999999d", "1 fortnight"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn a_port_alone_is_one_of_loopback_and_an_address_is_taken_as_it_is() {
        for (text, address) in [
            ("9598", "127.0.0.1:9598"),
            (":9598", "127.0.0.1:9598"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(listen(text).map(|a| a.to_string()), Ok(address.to_owned()));
        }
        for bad in ["", "host", "host:1", "127.0.0.1", "70000", "::1:1:"] {
            assert!(listen(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_text_with_escapes() {
        assert_eq!(key("abc"), Ok(KeyBytes(b"abc".to_vec())));
        assert_eq!(key(r"a\x00\xFF\\"), Ok(KeyBytes(vec![b'a', 0, 255, b'\\'])));
        assert_eq!(key("0x00ff"), Ok(KeyBytes(vec![0, 255])));
        assert_eq!(key("0x0g"), Ok(KeyBytes(b"0x0g".to_vec())));
        for bad in [r"\", r"\x0", r"\xzz", r"\n"] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mappings_are_absolute() {
        assert_eq!(mapping("/a=/b"), Ok(Mapping { old: "/a".into(), new: "/b".into() }));
        assert!(mapping("/a").is_err() && mapping("a=/b").is_err() && mapping("/a=b").is_err());
    }
}

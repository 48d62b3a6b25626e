//! The kinds of requests that a store is asked.
//!
//! Owns: their names, which measurements and tests share.

use serde::Serialize;

/// What is asked of a store. An upload asks three times or more: to start, for every piece, to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// [`Store::put`](super::Store::put).
    Put,
    /// [`Store::upload`](super::Store::upload).
    Upload,
    /// [`Upload::write`](super::Upload::write).
    Write,
    /// [`Upload::finish`](super::Upload::finish).
    Finish,
    /// [`Upload::abort`](super::Upload::abort).
    Abort,
    /// [`Store::get`](super::Store::get).
    Get,
    /// [`Store::get_range`](super::Store::get_range).
    GetRange,
    /// [`Store::size`](super::Store::size).
    Size,
    /// [`Store::list`](super::Store::list).
    List,
    /// [`Store::delete`](super::Store::delete).
    Delete,
}

impl Request {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Put,
        Self::Upload,
        Self::Write,
        Self::Finish,
        Self::Abort,
        Self::Get,
        Self::GetRange,
        Self::Size,
        Self::List,
        Self::Delete,
    ];

    /// Its name, lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Upload => "upload",
            Self::Write => "write",
            Self::Finish => "finish",
            Self::Abort => "abort",
            Self::Get => "get",
            Self::GetRange => "get-range",
            Self::Size => "size",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    /// Its place in [`Request::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Put => 0,
            Self::Upload => 1,
            Self::Write => 2,
            Self::Finish => 3,
            Self::Abort => 4,
            Self::Get => 5,
            Self::GetRange => 6,
            Self::Size => 7,
            Self::List => 8,
            Self::Delete => 9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_names_are_those_of_the_table() {
        for (i, request) in Request::ALL.into_iter().enumerate() {
            assert_eq!(request.index(), i);
            assert_eq!(serde_json::to_value(request).unwrap(), request.name());
        }
    }
}

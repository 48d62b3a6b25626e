//! `--owner USER:GROUP`: to whom restored files shall belong.
//!
//! Owns: the text form and looking the names up. Refuses: names that this machine does not know.

use std::{
    ffi::CString,
    fmt, fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use pitr_archive::{Code, Error, Result, error::io};
use rustix::process::{getegid, geteuid};

/// A user and a group, either of which may stay as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

impl Owner {
    /// `user`, `user:group` or `:group`, by name or number. `user:` takes the user's own group, as chown(1) does.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: &'static str| {
            Error::new(Code::Usage, "reading the owner")
                .on(format_args!("{text:?}"))
                .with("unknown", what)
                .hint("write USER:GROUP with names or numbers that this machine knows")
        };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() && group.is_none_or(str::is_empty) {
            return Err(bad("user and group"));
        }
        let known = if user.is_empty() { None } else { Some(lookup_user(user).ok_or_else(|| bad("user"))?) };
        let group = match group {
            None => None,
            Some("") => Some(known.and_then(|(_, own)| own).ok_or_else(|| bad("group of the user"))?),
            Some(name) => Some(lookup_group(name).ok_or_else(|| bad("group"))?),
        };
        Ok(Self { user: known.map(|(id, _)| id), group })
    }

    /// To whom a file belongs.
    pub fn of(file: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { user: Some(file.uid()), group: Some(file.gid()) }
    }

    /// Gives `path` to this owner.
    pub fn apply(self, path: &Path) -> Result<()> {
        chown(path, self.user, self.group).map_err(|e| io("changing the owner of", path, e))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = self.user {
            write!(f, "{user}")?;
        }
        if let Some(group) = self.group {
            write!(f, ":{group}")?;
        }
        Ok(())
    }
}

/// User id, and the user's own group where a name was given.
fn lookup_user(text: &str) -> Option<(u32, Option<u32>)> {
    let name = CString::new(text).ok()?;
    let mut buffer = vec![0 as libc::c_char; 16 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is valid for the call, and the buffer's length is given; `entry` is only read when the
    // call says that it filled it.
    let status =
        unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if status == 0 && !found.is_null() {
        // SAFETY: `found` is not null, so it points to `entry`, which the call has filled.
        let entry = unsafe { entry.assume_init_ref() };
        return Some((entry.pw_uid, Some(entry.pw_gid)));
    }
    number(text).map(|id| (id, None))
}

fn lookup_group(text: &str) -> Option<u32> {
    let name = CString::new(text).ok()?;
    let mut buffer = vec![0 as libc::c_char; 64 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: as in `lookup_user`.
    let status =
        unsafe { libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if status == 0 && !found.is_null() {
        // SAFETY: `found` is not null, so it points to `entry`, which the call has filled.
        return Some(unsafe { entry.assume_init_ref() }.gr_gid);
    }
    number(text)
}

/// Whether there is a directory, no link to one, that belongs to this process's user.
pub(crate) fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|what| what.is_dir() && what.uid() == geteuid().as_raw())
}

/// What was given to somebody is this process's again.
pub(crate) fn take_back(path: &Path) -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    match fs::symlink_metadata(path).map_err(|e| io("looking at", path, e))?.uid() == uid {
        true => Ok(()),
        false => chown(path, Some(uid), Some(gid)).map_err(|e| io("changing the owner of", path, e)),
    }
}

/// The largest number means "leave it" to chown(2) and is no id.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_unknown_ones_refused() {
        assert_eq!(Owner::parse("root").unwrap(), Owner { user: Some(0), group: None });
        assert_eq!(Owner::parse("root:root").unwrap(), Owner { user: Some(0), group: Some(0) });
        assert_eq!(Owner::parse("root:").unwrap(), Owner { user: Some(0), group: Some(0) });
        assert_eq!(Owner::parse(":7").unwrap(), Owner { user: None, group: Some(7) });
        assert_eq!(Owner::parse("1234:5678").unwrap(), Owner { user: Some(1234), group: Some(5678) });
        for bad in ["", ":", "no-such-user-here", "root:no-such-group-here", "1234:", "4294967295", "ro\0ot"] {
            assert_eq!(Owner::parse(bad).unwrap_err().code(), Code::Usage, "{bad:?}");
        }
    }
}

//! A named place at which tests stop the process as a power cut would.
//!
//! Owns: what `PITR_CRASH_AT=NAME` or `NAME:COUNT` means: SIGKILL when the place is reached for the COUNT-th time. The variable
//! is read once. Refuses: the names, which belong to the crates that perform effects.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

struct Armed {
    name: String,
    left: AtomicU64,
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED
        .get_or_init(|| {
            let text = std::env::var("PITR_CRASH_AT").ok()?;
            let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
            Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
        })
        .as_ref()
}

/// Ends the process here if the environment asks for it.
pub fn die_if_asked(name: &'static str) {
    if let Some(armed) = armed()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

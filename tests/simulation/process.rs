//! The end of an archiver's process at any of its effects.
//!
//! Owns: counting the effects of the archiver that runs on this thread, and unwinding out of it when its time has come.
//! What unwinding does beyond what a killed process does is undone: destructors would tidy the state directory, so it is
//! out of their reach until they have run.

use std::{
    cell::{Cell, RefCell},
    fs, panic,
    path::{Path, PathBuf},
};

use pitr_archiver::crash;

/// The effect at which the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death(pub &'static str);

/// When a process ends.
#[derive(Clone, Copy, Debug)]
enum Doom {
    /// Behind so many effects.
    After(u32),
    /// At the next effect of this name.
    At(&'static str),
}

#[derive(Debug, Default)]
struct Fate {
    /// The state directory of the archiver that runs.
    state: Option<PathBuf>,
    doom: Option<Doom>,
}

thread_local! {
    static FATE: RefCell<Fate> = RefCell::default();
    static PASSED: Cell<u64> = const { Cell::new(0) };
}

/// Chooses the effect, counted from now, at which the next archiver that gets there dies. `None`: none does.
pub fn die_after(effects: Option<u32>) {
    FATE.with_borrow_mut(|fate| fate.doom = effects.map(Doom::After));
}

/// The next archiver that has an effect of this name dies there. Counting alone hardly ever ends at an effect that few
/// processes have.
pub fn die_at(name: &'static str) {
    FATE.with_borrow_mut(|fate| fate.doom = Some(Doom::At(name)));
}

/// Whether an archiver will die.
pub fn is_doomed() -> bool {
    FATE.with_borrow(|fate| fate.doom.is_some())
}

fn aside(state: &Path) -> PathBuf {
    state.with_extension("dead")
}

/// The archiver on this thread is about to have, or just had, an effect.
pub fn effect(name: &'static str) {
    PASSED.set(PASSED.get() + 1);
    let dies = FATE.with_borrow_mut(|fate| {
        let state = fate.state.clone()?;
        let dies = match fate.doom.as_mut()? {
            Doom::At(wanted) => *wanted == name,
            Doom::After(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        };
        dies.then(|| {
            fate.doom = None;
            state
        })
    });
    if let Some(state) = dies {
        fs::rename(&state, aside(&state)).expect("the state directory, out of reach");
        // Past the panic hook: this is no failure.
        panic::resume_unwind(Box::new(Death(name)));
    }
}

/// Runs an archiver whose state is in `state`; answers where it died, if it did.
pub fn run<T>(state: &Path, deed: impl FnOnce() -> T) -> Result<T, Death> {
    let _telling = crash::tell(effect);
    FATE.with_borrow_mut(|fate| fate.state = Some(state.to_owned()));
    let done = panic::catch_unwind(panic::AssertUnwindSafe(deed));
    FATE.with_borrow_mut(|fate| fate.state = None);
    done.map_err(|payload| match payload.downcast::<Death>() {
        Ok(death) => *death,
        Err(panicked) => panic::resume_unwind(panicked),
    })
}

/// What a killed process leaves: its state directory as it was.
pub fn bury(state: &Path) {
    // Nothing of the archiver is left that could write there.
    let _ = fs::remove_dir_all(state);
    fs::rename(aside(state), state).expect("the dead archiver's state directory");
}

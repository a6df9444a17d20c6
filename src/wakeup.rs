//! What a session tells the background worker of its database: that something is pending, which documents it had to compute,
//! when one will expire; and what it knows of it.
//!
//! Invariant: nothing here takes a lock, waits, or raises; where the server has not preloaded the library, nothing is done. A
//! word that is lost costs time: what is to be done stands in tables, and the worker looks there.
//!
//! Rules: B1, B2, B4, B5, B11.

use crate::iso8601::iso8601;
use crate::pg::bgworker::{database_name, in_recovery};
use crate::pg::shared::{Board, Noted, Slot, board};
use crate::pg::value::Uuid;
use crate::pg::{Oid, xact};
use crate::settings;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::SeqCst;

/// What a worker does, as its slot says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Nothing,
    Starting,
    Refreshing,
    /// The last refresh has failed.
    Failed,
    /// What is left waits for others.
    HeldUp,
    NothingAttached,
    /// The server has no room for one more process.
    NoRoom,
}

const DOINGS: [Doing; 7] = [
    Doing::Nothing,
    Doing::Starting,
    Doing::Refreshing,
    Doing::Failed,
    Doing::HeldUp,
    Doing::NothingAttached,
    Doing::NoRoom,
];

pub fn set_doing(slot: &Slot, doing: Doing) {
    let number = DOINGS.iter().position(|d| *d == doing).unwrap_or(0);
    slot.state.store(number as u32, SeqCst);
}

pub fn doing(slot: &Slot) -> Doing {
    let number = slot.state.load(SeqCst) as usize;
    DOINGS.get(number).copied().unwrap_or(Doing::Nothing)
}

/// Something is pending in this database that others see now. By whoever has committed it.
pub fn wake() {
    let Some(board) = board() else { return };
    match board.mine() {
        // It does not wake itself: what it leaves pending would be begun anew for ever.
        Some(slot) if slot.is_mine() => {}
        Some(slot) => {
            if !slot.wanted.swap(true, SeqCst) {
                call(board, slot);
            }
        }
        None => ask(board),
    }
}

/// A document had to be computed for a reader, as none was stored that can be trusted.
pub fn missed(key: &Uuid) {
    if let Some(board) = board()
        && let Some(slot) = board.mine()
        && slot.note(u128::from_be_bytes(*key), false) == Noted::First
    {
        call(board, slot);
    }
}

/// Whether there is a worker that computes at once what it is told has changed, and keeps up with that. Or why not.
pub fn computes() -> Result<(), Worker> {
    match worker() {
        Worker::Starting | Worker::Refreshing | Worker::Idle | Worker::HeldUp { .. } => {
            if keeps_up() { Ok(()) } else { Err(Worker::Behind) }
        }
        why => Err(why),
    }
}

fn keeps_up() -> bool {
    board().and_then(Board::mine).is_some_and(Slot::has_room)
}

/// These profiles have lost their stamps, as others see now, and the worker computes them. By whoever has committed it.
pub fn changed(keys: &[Uuid]) {
    let Some(board) = board().filter(|_| !keys.is_empty()) else { return };
    // Where there is none any more, they are found by whoever reads them, and by who looks through the table.
    let Some(slot) = board.mine() else { return };
    let mut first = false;
    for key in keys {
        match slot.note(u128::from_be_bytes(*key), true) {
            Noted::First => first = true,
            Noted::BesideOthers => {}
            Noted::Lost => {
                slot.lost.fetch_add(1, SeqCst);
                first |= !slot.wanted.swap(true, SeqCst);
            }
        }
    }
    if first {
        call(board, slot);
    }
}

/// A document has been stored that expires then.
pub fn expires(at: i64) {
    if let Some(board) = board()
        && let Some(slot) = board.mine()
        && at < slot.next_at.load(SeqCst)
        && at > xact::clock()
        && at < slot.next_at.fetch_min(at, SeqCst)
        && !slot.is_mine()
    {
        call(board, slot);
    }
}

/// Wakes the worker, or who starts one.
fn call(board: &Board, slot: &Slot) {
    if !slot.worker.wake() {
        board.launcher.wake();
    }
}

/// The launcher is to look whether there is a database now that has been missing; every ten seconds at most, for what is not in
/// its list may ask again and again.
fn ask(board: &Board) {
    let now = xact::clock();
    if now - board.asked_at.load(SeqCst) > 10_000_000 && settings::databases().is_some() {
        board.asked_at.store(now, SeqCst);
        look_again(board);
    }
}

fn look_again(board: &Board) {
    board.look.store(true, SeqCst);
    board.launcher.wake();
}

/// How long nobody is connected for a statement that wants a database for itself, should that not say that it is over, in
/// microseconds.
const ALONE: i64 = 60_000_000;

thread_local! {
    /// The databases that statements of this transaction want for themselves, and until when; and whether there may be another
    /// one.
    static ALONE_WITH: RefCell<Vec<(Oid, i64)>> = const { RefCell::new(Vec::new()) };
    static DATABASES: Cell<bool> = const { Cell::new(false) };
}

/// A statement of this transaction wants nobody connected to a database: its worker leaves, and none begins. Who leaves.
pub fn let_go(database: Oid) -> Vec<i32> {
    let Some(slot) = board().and_then(|board| board.of(database)) else { return vec![] };
    let until = xact::clock() + ALONE;
    slot.let_go_until.store(until, SeqCst);
    let pids = slot.pids();
    slot.terminate();
    ALONE_WITH.with_borrow_mut(|alone| alone.push((database, until)));
    pids
}

/// There may be another database of some name when this transaction has ended.
pub fn databases_change() {
    DATABASES.set(true);
}

/// The transaction has ended, and with it what it wanted a database for.
pub fn transaction_ended() {
    let alone = ALONE_WITH.take();
    let changed = DATABASES.take();
    let Some(board) = board().filter(|_| !alone.is_empty() || changed) else { return };
    for (database, until) in alone {
        if let Some(slot) = board.of(database) {
            // Unless another statement wants the same meanwhile.
            let _ = slot.let_go_until.compare_exchange(until, 0, SeqCst, SeqCst);
        }
    }
    look_again(board);
}

/// What the worker of this database does, or why there is none.
pub enum Worker {
    NotPreloaded,
    Standby,
    Unlisted,
    NoLauncher,
    /// All of so many places are taken.
    NoPlace(usize),
    NoRoom,
    Starting,
    Refreshing,
    Idle,
    /// With which SQLSTATE, and when it tries again.
    Failed {
        until: i64,
        sqlstate: String,
    },
    HeldUp {
        until: i64,
    },
    /// More has changed than it has computed yet.
    Behind,
}

impl Worker {
    pub fn words(&self) -> String {
        match self {
            Worker::NotPreloaded => "off: not in shared_preload_libraries".into(),
            Worker::Standby => {
                "off: a standby has none; it begins when this one is promoted".into()
            }
            Worker::Unlisted => "off: this database is not in profile_cache.databases".into(),
            Worker::NoLauncher => {
                "off: its launcher does not run: is max_worker_processes too low?".into()
            }
            Worker::NoPlace(places) => {
                format!("off: no free place: it serves the first {places} databases of the list")
            }
            Worker::NoRoom => "no free worker slot: is max_worker_processes too low?".into(),
            Worker::Starting => "starting".into(),
            Worker::Refreshing => "refreshing".into(),
            Worker::Idle => "idle".into(),
            Worker::Failed { until, sqlstate } => {
                format!("waiting until {}: SQLSTATE {sqlstate}", iso8601(*until))
            }
            Worker::HeldUp { until } => {
                format!("waiting until {}: others are in the way", iso8601(*until))
            }
            Worker::Behind => "behind: more has changed than it has computed yet".into(),
        }
    }
}

/// Whether `profile_cache.databases` names this database.
pub fn is_listed() -> bool {
    let listed = settings::databases().unwrap_or_default();
    database_name().is_some_and(|name| names(&listed).contains(&name))
}

pub fn worker() -> Worker {
    let Some(board) = board() else { return Worker::NotPreloaded };
    if in_recovery() {
        return Worker::Standby;
    }
    let Some(slot) = board.mine() else {
        return match database_name() {
            Some(_) if !is_listed() => Worker::Unlisted,
            _ if !board.launcher.is_there() => Worker::NoLauncher,
            _ if board.slots.iter().all(|slot| slot.database().is_some()) => {
                Worker::NoPlace(board.slots.len())
            }
            _ => Worker::Starting,
        };
    };
    let next = slot.next_at.load(SeqCst);
    match doing(slot) {
        Doing::Failed => Worker::Failed {
            until: slot.not_before.load(SeqCst),
            sqlstate: xact::sqlstate_of(slot.sqlstate.load(SeqCst)),
        },
        Doing::NoRoom => Worker::NoRoom,
        Doing::Refreshing => Worker::Refreshing,
        Doing::Starting => Worker::Starting,
        _ if slot.wanted.load(SeqCst) => Worker::Starting,
        Doing::HeldUp if next < i64::MAX => Worker::HeldUp { until: next },
        _ => Worker::Idle,
    }
}

/// How often in a row the worker has failed, also while it tries again, and with which SQLSTATE last.
pub fn failing() -> Option<(u32, String)> {
    let slot = board()?.mine()?;
    let (times, code) = (slot.failures.load(SeqCst), slot.sqlstate.load(SeqCst));
    (times > 0 && code != 0).then(|| (times, xact::sqlstate_of(code)))
}

/// The names in a list, separated by commas; in double quotes where they hold a comma, a quote (twice) or blanks at their ends.
pub fn names(list: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted, mut was_quoted) = (vec![], String::new(), false, false);
    let mut letters = list.chars().chain([',']).peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' if quoted || name.trim().is_empty() => {
                (quoted, was_quoted) = (!quoted, true);
                if quoted {
                    name.clear();
                }
            }
            ',' if !quoted => {
                let found = std::mem::take(&mut name);
                let found = if was_quoted { found } else { found.trim().to_owned() };
                was_quoted = false;
                if !found.is_empty() && !names.contains(&found) {
                    names.push(found);
                }
            }
            // Behind a quoted name there is nothing but blanks.
            _ if was_quoted && !quoted => {}
            _ => name.push(letter),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_list_is_read_as_it_is_written() {
        assert_eq!(names(""), Vec::<String>::new());
        assert_eq!(names(" , ,"), Vec::<String>::new());
        assert_eq!(names("app"), ["app"]);
        assert_eq!(names(" App , b-2 ,app,App"), ["App", "b-2", "app"]);
        assert_eq!(names(r#""a, b" , "c ""d""" ,e"#), ["a, b", r#"c "d""#, "e"]);
        assert_eq!(names(r#"" x ""#), [" x "]);
        assert_eq!(names("my db"), ["my db"]);
    }
}

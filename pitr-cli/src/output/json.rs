//! The JSON that `--json` prints: one object on one line, or, for `log` and
//! `inspect wal|manifest|segment`, one object per line.
//!
//! Owns: the field names. They are stable: fields are added, never renamed or removed. Conventions: times are RFC 3339 in
//! UTC, with microseconds where they are known; sizes are bytes; durations say their unit in their name; what is not
//! known is `null` or absent. Keys and values are strings in `log`: printable ASCII as it is, a backslash doubled, every
//! other byte as `\xNN` (in JSON text: `\\xNN`); in `inspect` they are `{"text": "..."}` or `{"hex": "..."}`. Errors are described in `output::error`.
//!
//! A **position** is `{timeline, record, wal, offset, sequence, boundary, hash}`: the last record included (`null` before
//! the first), the WAL file it came from and the offset after it, the database's latest sequence number there, the
//! number of records before (`record + 1`), and the running hash.
//!
//! | command | fields |
//! |---|---|
//! | `run --once` | `database`, `archive`, `position`: the end of the archive; with `--config` `databases`: each the same |
//! | `config check` | `sources` (files and variables, in their order), `databases`: each `name`, `db`, `group` (or null), `archive`, `key` (its id, or null), `state`, `interval_ms` |
//! | `config show` | `sources`, `config`: all of it, as the file is written, without what may be secret |
//! | `config schema` | the JSON schema of the file, also without `--json` |
//! | `base` | `id`, `floor`: a position, `by`: `archiver` or `this process`; where a database has several archives also `archive` (its name), `archives`: the same of the others, `missing`: names of those in which it was not done |
//! | `flush` | `position`, `by`; `archive`, `archives`, `missing` as for `base` |
//! | `tag create` | `name`, `note`, `position`, `created`, `observed_only`, `expires` (null: never), `by`; `archive`, `archives`, `missing` as for `base` |
//! | `tag create --group` | `name`, `note`, `group`, `id`, `began`, `closed`, `held` (whether `before_tag` is configured), `expires`, `members`: each `database`, `archive` (its name), `position`, `observed_only`; `missing`: names of further archives that lack it |
//! | `tag list` | `tags`: each `name`, `note`, `position`, `created`, `observed_only`, `expires`, and of a group `group`: `{name, id, databases, began, closed}` |
//! | `tag list --group` | `group`, `tags`: each `name`, `note`, `id`, `began`, `closed` (null where incomplete), `complete`, `expires`, `members`: each `database`, `position`; `faults`: each `database`, `reason`; `unread`: each `database`, `error`: `{code, message, hint}` |
//! | `prune` | `dry_run`, `at`, `window_from`, `window_to` (null while nothing was observed), `window_seconds`, `window_widened`, `condemned` (no longer part of the archive from now on) and `deleted`: `bases`, `files`, `unreferenced`, `tags`, `segments`, `manifests`, `leftovers`, each `{objects, bytes}`; `waiting`: `{objects, bytes}`, `due` (when the first of it is deleted), `holds` |
//! | ... `.bases[]` | `id`, `timeline`, `created`, `floor` (a boundary), `bytes`, `keep`: the rules, each `{rule}` (`window`, `newest`, `last`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`, `tag` with `name` and `tags`, `hold`), `drop` (absent, or `no-rule`, `serves-nothing`, `left-branch`) |
//! | ... `.tags[]` | `name`, `timeline`, `boundary`, `expires`, `expired`, `base` |
//! | ... `.timelines[]` | `timeline`, `kept`: each `from`, `to` (ordinals), `first`, `end` (boundaries), `segments`, `bytes`, `keep`; `dropped`: `{objects, bytes}`; `before`, `after`: what can be restored, each `from`, `to` (boundaries), `since` |
//! | `tag delete` | `name`, `deleted`: true; with `--group` `group`, `name`, `deleted`: names of the archives |
//! | `status` | `now`; `archiver`: null, or what the running archiver says (`database`, `archive`, `epoch`, `read`, `acknowledged`: positions, `unacknowledged_records`, `oldest_unacknowledged`, `caught_up`, `last_acknowledged`, `last_base`, `base`, `base_due`, `pinned_bytes`, `pin_delay`: `{pinned, p50, p99, p999, max}` in microseconds, or null, `barriers`, `waiting`); `lag_seconds`; `archive`: null, or `url`, `id`, `encrypted`, `timelines` |
//! | ... `.archive.timelines[]` | `timeline`, `head`: a place with its `sequence`, `observed_through`, `last_base`, `segments`, `bytes`, `windows`: each `from`, `to` (places), `from_time`, `to_time`; `gaps`: each `at` (a place), `reason`, `noticed`, `detail` |
//! | `list` | `timelines`, `bases`, `tags`, `barriers`, `segments`, `picture`, `drills`: those asked for |
//! | ... `.timelines[]` | `timeline`, `parent`: a position or null, `created`, `db_id`, `detail` (why it began; empty for the first), `current`: whether it was written last, `head` (a boundary) |
//! | ... `.bases[]` | `id`, `created`, `timeline`, `floor`, `first_wal`, `last_sequence`, `files`, `bytes`, `column_families`, `rocksdb_version` |
//! | ... `.barriers[]` | `timeline`, `reason`, `lo`, `hi` (boundaries), `noticed`, `detail` |
//! | ... `.segments[]` | with `--segments`: `timeline`, `ordinal`, `first`, `end` (boundaries), `records`, `last_sequence`, `bytes`, `plain_bytes`, `from`, `to` (times seen), `observed_through`, `events`; else per timeline: `timeline`, `segments`, `heartbeats`, `records`, `bytes`, `plain_bytes` |
//! | ... `.picture` | with `--timeline` (no number) or `picture`: `from`, `to` (null where there is no timeline); `timelines`: each `timeline`, `current`, `from`, `to`, `left` (null, or the `timeline` and `boundary` that it left, and `at` when that was reached, null if not known), and what lies between `picture.from` and `picture.to`: `windows` (each `from`, `to`), `bases` (`id`, `at`), `tags` (`name`, `at`), `barriers` (`reason`, `at`), `written`: of a hundred parts of that time those in which something came, `from`, `to`, `records`, `bytes` (before compression). Where an index stands for segments, what they hold counts as having come evenly |
//! | ... `.drills[]` | the newest hundred in order of time, each as `drill` |
//! | `log`, each line | `timeline`, `record`, `index` (of the operation in its record), `seen`, `unseen` (the look before, null where there was none), `wal`, `offset`, `sequence`, `column_family`: `{id, name}`, `operation`, `key`, `value` (or the end of a range), `withdrawn` |
//! | `plan` | the plan: `archive`, `target`, `position`, `distance`, `time`, `base`, `segments`, `column_families`, `engine`: `{name, reason}` (`native`, `flush`, `bulk`), `part` (where not all is restored: `families`: each `id`, `name`; `keys`: `{from, to}`, where not all are; `files_left_out`, `bytes_left_out`, `latest_sequence`), `flushes` (those that are laid down, where there are any): `[{column_family, manifest, edit, files, largest_sequence}]`, `ingestions` (those that are repeated, where there are any): `[{manifest, at, sequence, sequence_after, parts}]`, `wals`, `withdrawn`, `two_phase`, `write_policy` (`write-committed`, `write-prepared`, `write-unprepared` or null), `pending`: `[{name, operations, wal, record}]`, `download_bytes`, `disk_bytes`, `unlogged` (where writes without the log are tolerated): `[{column_family, flushed_before, as_of}]`, `notes`, `estimate`: `seconds` until the database can be read, of that `planning_seconds`, `fetching_seconds`, `opening_seconds` (the server's, unless it is done here), `basis`: `measured` (with `drill`: the newest that tells, `drills`: how many, `elsewhere`: on other machines) or `guess` (with `reason`) |
//! | `restore` | the report: `into`, `position`, `base`, `marker`, `files`, `file_bytes`, `records`, `wal_bytes`, `tables` and `table_bytes` (what was made of the records instead), `recovered`, `notes`, `reused_file_bytes` and `reused_records` (what an interrupted restore had done already), in place also `aside` (where the directories are that were there) and `left_behind` (what lay in the database's own and is not RocksDB's), and `seconds`, `estimate` as for `plan` |
//! | `drill` | the report: `id`, `began`, `ended`, `verdict` (`passed`, `structure-only`, `failed`), `target`: `{chosen, asked, instead}` (`chosen`: `random`, `latest`, `given`), `position`, `base`, `engine`, `restore_seconds` (until the database could be read: `planning_seconds`, `laying_down_seconds`, `opening_seconds` together), `estimated_seconds`, `estimate_measured`, `checking_seconds`, `command_seconds`, `data_at_risk_seconds`, `download_bytes`, `file_bytes`, `log_bytes`, `records`, `checked`: `structure` (`{files, bytes, checksums}`), `sequence`, `column_families` (each `name`, `pairs`, `bytes`, `hash`, `varies`), `unopened`, `same_as`, `command`; `failure`: null, or `{code, text}`; `written` (into the archive), `kept` (the restored database's directory, with `--keep`). What it did not come to is null. Where it failed the error follows on standard error |
//! | `plan --group` | `group`, `tag` (where that is the target): `{id, began, closed}`, `common`: `{from, to}`, in which all certainly were in these states, or null, `members`: each `database`, and `archive` and `plan`, or `error`: `{code, message, hint}`; where there is an error, the command ends with one, too |
//! | `restore --group` | `group`, `members`: each `database`, `archive`, `report`; `seconds` |
//! | `rollback --group` | `group`, `restored`: which side all are on, `members`: each `database`, `db`, `aside` (empty where it was on that side already) |
//! | `settle --group` | `group`, `discarded`, `members`: each `database`, `directories` |
//! | `rollback` | `db`, `aside`: where what it held is now |
//! | `settle` | `discarded`: whether they were deleted, `directories` |
//! | `verify` | `ok`, `findings`: each `severity`, `code`, `object`, `text`, `hint`; `checked`: `timelines`, `manifests`, `segments`, `records`, `bases`, `files`, `file_bytes`, `tags`, `drills`, `garbage`: what is in the store and no part of the archive (`condemned`, `condemned_bytes`, `unreferenced`, `unreferenced_bytes`); with `--deep` also `deep`: `position`, `bases`, `compared` |
//! | `check` | `ok`, `findings`: each `id`, `severity` (`ok`, `info`, `warning`, `error`), `finding`, `fix`; `store`: the probe's steps; `requests_per_month`: `{busy, idle}`; `restore_seconds` |
//! | `inspect options` | `sections`: each `section`, `settings`; `db` and `column_families`: the settings that matter, typed |
//! | `inspect wal`, each line | `kind`: `metadata`, `batch` (`offset`, `end`, `byte_size`, `sequence`, `count`, `sequence_advance`, `ops`, `summary`, `error`) or, last, `ending` (`verdict`: `end`, `incomplete`, `corrupt`) |
//! | `inspect manifest`, each line | `kind`: `edit` (named as `ldb manifest_dump --verbose` does), `ending`, and last `state` |
//! | `inspect segment`, each line | `kind`: `header`, `event`, `record`, and last `footer` |
//! | `demo` | `directory`, `steps`: each `command`, `exit`, `milliseconds`; `proofs`: each `target`, `sequence`, `write`, `writes`, `keys`, `families`; `milliseconds` |
//! | `errors` | `errors`: each `code`, `exit`, `severity`, `retry`, `meaning`, `hint` |

use pitr_archive::{
    catalog::schema::Position,
    ids::{Boundary, FileNumber, RecordNumber, RunningHash, SequenceNumber, TimelineId},
};
use serde::Serialize;

/// A position as every command shows it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShownPosition {
    timeline: TimelineId,
    record: Option<RecordNumber>,
    wal: Option<FileNumber>,
    offset: Option<u64>,
    sequence: SequenceNumber,
    boundary: Boundary,
    hash: RunningHash,
}

impl From<&Position> for ShownPosition {
    fn from(p: &Position) -> Self {
        Self {
            timeline: p.timeline,
            record: p.boundary.last_record(),
            wal: p.wal,
            offset: p.offset,
            sequence: p.sequence,
            boundary: p.boundary,
            hash: p.hash,
        }
    }
}

//! The table of error codes: what each means, what a person can do, how a process exits, whether to retry.
//!
//! Owns: the stable dotted names. A code is never renamed or reused; the README's table is tested against this one.

use std::fmt;

use serde::{Serialize, Serializer};

/// What the process exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// 1: the check ran and found damage or a gap.
    Damage,
    /// 2: usage, configuration, or the local environment.
    Usage,
    /// 3: the target cannot be reached.
    Target,
    /// 4: storage is unavailable; try again.
    Store,
    /// 5: integrity or key failure.
    Integrity,
    /// 6: another writer has the archive.
    Fenced,
    /// 70: a fault of the program itself.
    Internal,
    /// 130: ended by Ctrl-C or SIGTERM.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn status(self) -> u8 {
        match self {
            Self::Damage => 1,
            Self::Usage => 2,
            Self::Target => 3,
            Self::Store => 4,
            Self::Integrity => 5,
            Self::Fenced => 6,
            Self::Internal => 70,
            Self::Interrupted => 130,
        }
    }
}

/// How much of the user's protection is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works on, with less than was asked.
    Warning,
    /// This command failed; nothing that was protected is lost.
    Error,
    /// Something that was archived cannot be trusted, or archiving has stopped.
    Critical,
}

/// Whether the same deed can succeed later without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// Temporary by nature.
    Later,
    /// The same input gives the same answer.
    Never,
}

macro_rules! codes {
    ($($variant:ident = $name:literal, $exit:ident, $severity:ident, $retry:ident, $meaning:literal, $hint:literal;)+) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "`: ", $meaning, ".")] $variant,)+
        }

        impl Code {
            /// Every code, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The dotted name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// How the process exits when this ends it.
            pub const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit),+ }
            }

            /// How much is at stake.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),+ }
            }

            /// Whether trying again can help.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry),+ }
            }

            /// What it means, as the end of a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }

            /// What a person can do.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint),+ }
            }
        }
    };
}

codes! {
    // RocksDB's files.
    WalCorrupt = "wal.corrupt", Damage, Critical, Never, "a record of the write-ahead log is damaged", "the place is named above; what lies before it is archived and restorable, and a new base follows";
    WalUnsupported = "wal.unsupported", Usage, Critical, Never, "the write-ahead log holds something this version cannot read faithfully", "check which RocksDB version and which options wrote it (pitr check)";
    BatchMalformed = "wal.batch-malformed", Damage, Critical, Never, "a write batch cannot be decoded", "the log is damaged or was written by a newer RocksDB; pitr inspect wal shows the place";
    ManifestCorrupt = "rocksdb.manifest-corrupt", Damage, Critical, Never, "RocksDB's MANIFEST is damaged", "pitr inspect manifest shows what is readable";
    ManifestUnsupported = "rocksdb.manifest-unsupported", Usage, Critical, Never, "RocksDB's MANIFEST holds an edit this version does not know", "use a pitr that knows the RocksDB version that wrote it";
    OptionsMalformed = "rocksdb.options-malformed", Usage, Error, Never, "RocksDB's OPTIONS file cannot be parsed", "the line is named above";
    MarkerDamaged = "rocksdb.marker-damaged", Damage, Error, Never, "the file pitr-restored.json in the database's directory cannot be read", "copy it from the restored directory again; without it the database is taken for the one that was archived before";
    NotADatabase = "rocksdb.not-a-database", Usage, Error, Never, "the directory holds no RocksDB database", "give the directory that holds the file CURRENT";
    DatabaseUnsupported = "rocksdb.unsupported", Usage, Error, Never, "the database uses a feature that cannot be archived faithfully", "the feature is named above";
    DatabaseOpen = "rocksdb.open-failed", Damage, Error, Never, "RocksDB refused to open the directory", "RocksDB's own words are above";
    // Local files.
    FileNotFound = "file.not-found", Usage, Error, Never, "the file does not exist", "check the path";
    FileNotPermitted = "file.not-permitted", Usage, Error, Never, "the file may not be used by this user", "run pitr as the user that owns the database";
    FileIo = "file.io", Usage, Error, Later, "the operating system reported an error", "its words are above; check the disk";
    DiskFull = "file.disk-full", Usage, Error, Later, "the disk is full", "make room, or choose a directory on another file system";
    // Segments and the stream.
    SegmentDamaged = "segment.damaged", Integrity, Critical, Never, "the segment's bytes are not what was written", "restore from another copy of the archive; pitr verify lists everything that is affected";
    SegmentUnsupported = "segment.unsupported-version", Usage, Error, Never, "the segment was written by a newer pitr", "use the version of pitr that wrote it, or a newer one";
    SegmentMissing = "segment.missing", Integrity, Critical, Never, "a segment that the archive names is not there", "somebody deleted it, or the store lost it; targets before it can still be restored";
    SegmentMerged = "segment.merged", Integrity, Critical, Never, "a manifest names a merged segment that is not what it stands for", "the segments that it was merged from stay in use as long as they are there; pitr verify tells whether all of them are";
    ChainBroken = "archive.chain-broken", Integrity, Critical, Never, "the running hash does not join two neighbouring parts of the archive", "an object was replaced or reordered; pitr verify shows where";
    ObjectDamaged = "archive.object-damaged", Integrity, Critical, Never, "the object's bytes are not what was written", "restore it from another copy of the archive";
    ObjectTooLarge = "archive.object-too-large", Integrity, Critical, Never, "the object is larger than such an object can be", "it is not what was written: restore it from another copy of the archive";
    ObjectUnsupported = "archive.unsupported-version", Usage, Error, Never, "the object was written by a newer pitr", "use the version of pitr that wrote it, or a newer one";
    ObjectMissing = "archive.object-missing", Integrity, Critical, Never, "an object that the archive names is not there", "somebody deleted it, or the store lost it";
    NotAnArchive = "archive.not-found", Usage, Error, Never, "there is no archive at this place", "check the URL; pitr run --db DIR --archive URL creates one";
    ArchiveGone = "archive.gone", Store, Critical, Later, "the archive that this state directory belongs to is not there", "is its disk mounted, and the bucket the one it was? To begin a new archive at this place, delete known-archive.json from the state directory";
    WrongArchive = "archive.wrong-identity", Integrity, Critical, Never, "the object belongs to another archive", "check that the URL names the archive that this state directory belongs to";
    // Keys.
    KeyRequired = "key.required", Integrity, Error, Never, "the archive is encrypted and no key was given", "give --key-file, or key in the configuration";
    KeyWrong = "key.wrong", Integrity, Error, Never, "the key does not open this archive", "give the key that the archive was created with";
    KeyUnexpected = "key.unexpected", Usage, Error, Never, "a key was given for an archive that is not encrypted", "leave out --key-file, or create a new archive with it: an archive is encrypted from its first object on or never";
    KeyMalformed = "key.malformed", Usage, Error, Never, "there is no key in what was given as one", "a key is 64 hexadecimal digits; make one with: head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > key && chmod 600 key";
    KeyExposed = "key.exposed", Usage, Error, Never, "the key file can be read by other users", "chmod 600 the key file";
    // Stores.
    StoreUnavailable = "store.unavailable", Store, Error, Later, "the object store did not answer as it should", "nothing is lost while the database's disk has room; pitr goes on by itself when the store is back";
    StoreDenied = "store.denied", Store, Error, Never, "the object store refused the request", "check the credentials and the bucket's policy: pitr check --archive URL shows which request is refused";
    StoreRefused = "store.refused", Store, Error, Never, "the object store answered with an error that does not pass by itself", "its own words are above; check the URL's options and the bucket's settings";
    StoreNotFound = "store.bucket-not-found", Store, Error, Never, "the bucket or container does not exist", "create it, or correct the URL";
    StoreUrl = "store.url", Usage, Error, Never, "the archive's URL cannot be used", "examples: file:/var/backups/db  s3://bucket/prefix?region=eu-west-1  azblob://container/prefix  gs://bucket/prefix";
    StoreOption = "store.unknown-option", Usage, Error, Never, "the archive's URL has an option this store does not know", "the known options are listed above";
    StoreNotExclusive = "store.not-exclusive", Usage, Error, Never, "the store lets two writers create the same object", "use a store with conditional writes (AWS S3, Azure, GCS, a local disk): here two archivers could silently overwrite each other";
    StoreInconsistent = "store.inconsistent", Store, Critical, Never, "the store did not give back what was written", "do not use this store for archives";
    PruneOvertaken = "prune.overtaken", Store, Warning, Later, "another prune of the archive is under way, or died less than ten minutes ago", "nothing is lost: run it again; one prune by the clock is enough for an archive";
    // Writers.
    Fenced = "writer.fenced", Fenced, Critical, Never, "another archiver has taken over this archive", "one archiver per archive: find the other one before starting this one again";
    StateLocked = "writer.state-locked", Fenced, Error, Later, "another pitr process uses this state directory", "use its control socket (pitr status, pitr tag create), or stop it";
    // Archiving.
    BaseUnobtainable = "base.unobtainable", Store, Error, Later, "no consistent base could be taken", "the database changes its files faster than they can be linked; it is tried again";
    BaseNotPublishable = "base.not-publishable", Target, Error, Later, "the base is taken but the archive does not yet hold every record it needs", "it becomes usable as soon as the records arrive";
    PinImpossible = "pin.impossible", Usage, Error, Never, "the database's files cannot be hard-linked from here", "run pitr as the database's user, with its state directory on the same file system";
    UnflushedWal = "tag.unflushed-wal", Usage, Error, Later, "the server keeps committed writes in its own memory (manual_wal_flush)", "make the server flush its log (FlushWAL), then tag again; or give --observed to tag what is in the files";
    // Targets.
    TargetMalformed = "target.malformed", Usage, Error, Never, "the target cannot be understood", "examples: --to-time 2026-11-20T13:33:00Z  --to-time '2 hours ago'  --to-seq 4711  --to-record 99  --to-tag before-migration  --to-latest";
    TargetAmbiguous = "target.ambiguous", Target, Error, Never, "more than one place answers to this target", "the candidates are listed above, each with what names it";
    TargetAfterEnd = "target.after-end", Target, Error, Later, "the target lies after the end of the archive", "the end is shown above; --to-latest goes there";
    TargetBeforeStart = "target.before-start", Target, Error, Never, "the target lies before every base", "the earliest restorable position is shown above";
    TargetBehindBarrier = "target.behind-barrier", Target, Error, Never, "no base reaches the target without crossing a barrier", "the barrier and its reason are shown above, with the nearest positions that can be restored";
    TargetInsideEvent = "target.inside-event", Target, Error, Never, "the target lies inside the interval in which a change outside the log happened", "restore to one of the two ends shown above";
    TargetUnsupported = "target.unsupported", Target, Error, Never, "the records on the way to the target cannot be replayed exactly", "the reason is shown above, with the nearest positions that can be restored";
    EngineUnusable = "engine.unusable", Usage, Error, Never, "the engine that was asked for cannot be used for this target", "leave --engine out: the fastest one that can be used is taken";
    PartUnusable = "part.unusable", Usage, Error, Never, "the part that was asked for cannot be restored by itself", "the reason is shown above; without --cf, --prefix and --range the whole database is restored";
    TagUnknown = "tag.unknown", Target, Error, Never, "there is no such tag", "pitr tag list shows all tags";
    TagExists = "tag.exists", Usage, Error, Never, "there is already a tag of this name", "tags never move; choose another name, or delete the old one first";
    TagMalformed = "tag.malformed-name", Usage, Error, Never, "the tag's name cannot be used", "1 to 128 letters, digits, '.', '_', '-', not beginning with '.' or '-'";
    // Groups.
    GroupUnknown = "group.unknown", Usage, Error, Never, "the configuration has no such group", "a database is in a group that its section names: group = \"NAME\"";
    GroupNotTagged = "group.not-tagged", Usage, Error, Later, "not every database of the group could be tagged", "each one at fault is named above with its reason; a group has a tag where all of its databases have it";
    GroupIncomplete = "group.incomplete", Target, Error, Never, "not every database of the group can be brought there", "each one at fault is named above with its reason; nothing was touched";
    GroupUnfinished = "group.unfinished", Usage, Error, Later, "some databases of the group are in their places and others are not", "the same command goes on from here; start no server before it has ended";
    // Restoring.
    DestinationNotEmpty = "restore.destination-not-empty", Usage, Error, Never, "the destination is not empty", "choose a directory that does not exist yet or is empty";
    DatabaseInUse = "restore.in-use", Usage, Error, Later, "a server has the database open", "stop it first: what it writes would be lost, and it would go on in the directory that was set aside";
    CannotSwap = "restore.cannot-swap", Usage, Error, Never, "a directory cannot be replaced by another one", "restore with --into beside it, and put the directories in their places by hand while the server is stopped";
    SwapInterrupted = "restore.swap-interrupted", Usage, Error, Later, "a database was being put in its place when that failed", "nothing is lost: the old and the new database are both there, and the same command goes on from here";
    NothingAside = "restore.nothing-aside", Usage, Error, Never, "no restore in place has set a database aside here", "pitr restore --in-place does; what was settled is no longer known";
    SwapRecordDamaged = "restore.record-damaged", Usage, Error, Never, "the file that says what was set aside cannot be read", "the directories DIR.before-TIME and DIR.restored-TIME are whole: with the server stopped, rename them by hand and delete this file";
    DestinationTooSmall = "restore.no-space", Usage, Error, Never, "the destination has too little free space", "the need and what is free are shown above";
    ForeignPath = "restore.foreign-path", Usage, Error, Never, "the database keeps files outside its own directory", "say where they shall go with --map-path OLD=NEW (the paths are shown above)";
    SequenceMismatch = "restore.sequence-mismatch", Integrity, Critical, Never, "the restored database's latest sequence number is not the planned one", "the restored copy is kept aside and must not be used; please report this";
    IngestionDiffers = "restore.ingestion-differs", Target, Error, Never, "an ingestion cannot be repeated as the source did it", "restore to a position behind the next base, or before the ingestion: pitr plan without --cross-ingest names the nearest ones";
    // Checks.
    DrillFailed = "drill.failed", Damage, Critical, Never, "the restored database is not what it should be", "what differs is named above: pitr verify tells whether the archive is whole; the position can be drilled again with --to-record, and looked at with --keep";
    DrillRefused = "drill.check-failed", Damage, Error, Never, "the check command did not accept the restored database", "its own words are above or in the log; --keep leaves the restored database for a look at it";
    VerifyFailed = "verify.damage", Damage, Critical, Never, "the check found damage or a gap", "each finding is listed above";
    // Commands.
    Usage = "usage", Usage, Error, Never, "the command cannot be carried out as given", "see --help, which has examples";
    ConfigMalformed = "config.malformed", Usage, Error, Never, "the configuration cannot be read", "the place is shown above; pitr config schema describes every key";
    HookFailed = "hook.failed", Usage, Error, Later, "a command of the configuration failed", "its own words are in the log; the archiver goes on, but takes no base while before_base fails";
    ConfigContradictory = "config.contradictory", Usage, Error, Never, "the configuration cannot be carried out", "what stands in the way is named above";
    HttpListen = "http.listen", Usage, Error, Later, "the address for the status page and metrics cannot be listened on", "another process has it, most likely another pitr: choose a port with --http or http.listen";
    ControlUnavailable = "control.unavailable", Usage, Error, Later, "the running archiver cannot be reached", "check that it runs under the same --state";
    Interrupted = "interrupted", Interrupted, Warning, Later, "interrupted", "run the same command again";
    Internal = "internal", Internal, Critical, Never, "a fault of pitr itself", "please report this with the whole message";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_code_has_meaning_and_hint() {
        let names: HashSet<_> = Code::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(!code.meaning().is_empty() && !code.hint().is_empty(), "{code}");
        }
    }
}

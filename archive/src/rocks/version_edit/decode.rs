//! Decoding of VersionEdits, field by field.

use super::{
    BlobFileAddition, BlobFileGarbage, DeletedFile, InternalKey, NewFile, SstUniqueId, WalAddition, custom, tag,
};
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::coding::{CodingError, Decoder},
};

/// Why a VersionEdit cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("in the field with tag {tag} at offset {offset} of the MANIFEST record: {problem}")]
pub struct VersionEditError {
    /// Offset of the field in the record's payload.
    pub offset: usize,
    /// The field's tag; 0 if the tag itself cannot be read.
    pub tag: u32,
    /// What is wrong.
    pub problem: VersionEditProblem,
}

/// What can be wrong with a VersionEdit's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionEditProblem {
    /// Cut off or malformed; the offset is in the record's payload, or in the field for fields with a length.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// A tag of a later version that must not be ignored.
    #[error("the tag is not known and must not be ignored")]
    UnknownTag,
    /// A part of a file's description, of a later version, that must not be ignored.
    #[error("part {custom_tag} of the file's description is not known and must not be ignored")]
    UnknownCustomTag {
        /// The part's tag.
        custom_tag: u32,
    },
    /// A key without sequence number and type.
    #[error("a key is too short to hold a sequence number")]
    ShortKey,
    /// A field with a fixed size has another one.
    #[error("part {custom_tag} has {len} bytes")]
    WrongSize {
        /// The part's tag; 0 for the field itself.
        custom_tag: u32,
        /// Bytes it has.
        len: usize,
    },
    /// A path id beyond the four that RocksDB allows.
    #[error("path id {0} is greater than 3")]
    PathId(u8),
    /// A field that must not be empty is.
    #[error("the field is empty")]
    Empty,
}

impl VersionEditError {
    /// Whether the record may be in order and it is this decoder that does not know it.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self.problem, VersionEditProblem::UnknownTag | VersionEditProblem::UnknownCustomTag { .. })
    }
}

/// One field of a VersionEdit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the same names as in VersionEdit, described there
#[allow(clippy::large_enum_variant)] // fields are short-lived, and a snapshot has as many as there are files
pub enum Field<'a> {
    DbId(&'a [u8]),
    Comparator(&'a [u8]),
    LogNumber(FileNumber),
    PrevLogNumber(FileNumber),
    NextFileNumber(FileNumber),
    MaxColumnFamily(ColumnFamilyId),
    MinLogNumberToKeep(FileNumber),
    LastSequence(SequenceNumber),
    CompactCursor { level: u32, key: InternalKey<'a> },
    DeletedFile(DeletedFile),
    NewFile(NewFile<'a>),
    BlobFileAddition(BlobFileAddition<'a>),
    BlobFileGarbage(BlobFileGarbage<'a>),
    WalAddition(WalAddition),
    WalDeletion(FileNumber),
    ColumnFamily(ColumnFamilyId),
    ColumnFamilyAdd(&'a [u8]),
    ColumnFamilyDrop,
    InAtomicGroup(u32),
    FullHistoryTsLow(&'a [u8]),
    PersistUserDefinedTimestamps(bool),
    SubcompactionProgress(&'a [u8]),
    LastCompactedManifestFileSize(u64),
    Unknown { tag: u32, bytes: &'a [u8] },
}

/// Iterator over a record's fields; after an error nothing follows.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    decoder: Decoder<'a>,
    broken: bool,
}

impl<'a> Fields<'a> {
    /// Over a record's payload.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(payload), broken: false }
    }

    fn field(&mut self, tag: u32) -> Result<Field<'a>, VersionEditProblem> {
        let d = &mut self.decoder;
        let number = |d: &mut Decoder<'a>| d.varint64().map(FileNumber::new);
        Ok(match tag {
            tag::DB_ID => Field::DbId(d.length_prefixed()?),
            tag::COMPARATOR => Field::Comparator(d.length_prefixed()?),
            tag::LOG_NUMBER => Field::LogNumber(number(d)?),
            tag::PREV_LOG_NUMBER => Field::PrevLogNumber(number(d)?),
            tag::NEXT_FILE_NUMBER => Field::NextFileNumber(number(d)?),
            tag::MAX_COLUMN_FAMILY => Field::MaxColumnFamily(ColumnFamilyId::new(d.varint32()?)),
            tag::MIN_LOG_NUMBER_TO_KEEP => Field::MinLogNumberToKeep(number(d)?),
            tag::LAST_SEQUENCE => Field::LastSequence(SequenceNumber::new(d.varint64()?)),
            tag::COMPACT_CURSOR => Field::CompactCursor { level: d.varint32()?, key: internal_key(d)? },
            tag::DELETED_FILE => Field::DeletedFile(DeletedFile { level: d.varint32()?, number: number(d)? }),
            tag::NEW_FILE | tag::NEW_FILE_2 | tag::NEW_FILE_3 | tag::NEW_FILE_4 => Field::NewFile(new_file(d, tag)?),
            tag::BLOB_FILE_ADDITION | tag::BLOB_FILE_ADDITION_DEPRECATED => Field::BlobFileAddition(BlobFileAddition {
                number: number(d)?,
                total_blob_count: d.varint64()?,
                total_blob_bytes: d.varint64()?,
                checksum_method: d.length_prefixed()?,
                checksum_value: d.length_prefixed()?,
                unknown: blob_custom_fields(d)?,
            }),
            tag::BLOB_FILE_GARBAGE | tag::BLOB_FILE_GARBAGE_DEPRECATED => Field::BlobFileGarbage(BlobFileGarbage {
                number: number(d)?,
                garbage_blob_count: d.varint64()?,
                garbage_blob_bytes: d.varint64()?,
                unknown: blob_custom_fields(d)?,
            }),
            tag::WAL_ADDITION => Field::WalAddition(wal_addition(d)?),
            tag::WAL_ADDITION_2 => Field::WalAddition(wal_addition(&mut Decoder::new(d.length_prefixed()?))?),
            tag::WAL_DELETION => Field::WalDeletion(number(d)?),
            tag::WAL_DELETION_2 => Field::WalDeletion(number(&mut Decoder::new(d.length_prefixed()?))?),
            tag::COLUMN_FAMILY => Field::ColumnFamily(ColumnFamilyId::new(d.varint32()?)),
            tag::COLUMN_FAMILY_ADD => Field::ColumnFamilyAdd(d.length_prefixed()?),
            tag::COLUMN_FAMILY_DROP => Field::ColumnFamilyDrop,
            tag::IN_ATOMIC_GROUP => Field::InAtomicGroup(d.varint32()?),
            tag::FULL_HISTORY_TS_LOW => match d.length_prefixed()? {
                [] => return Err(VersionEditProblem::Empty),
                timestamp => Field::FullHistoryTsLow(timestamp),
            },
            tag::PERSIST_USER_DEFINED_TIMESTAMPS => {
                Field::PersistUserDefinedTimestamps(one_byte(0, d.length_prefixed()?)? == 1)
            }
            tag::SUBCOMPACTION_PROGRESS => Field::SubcompactionProgress(d.length_prefixed()?),
            tag::LAST_COMPACTED_MANIFEST_FILE_SIZE => {
                Field::LastCompactedManifestFileSize(Decoder::new(d.length_prefixed()?).varint64()?)
            }
            tag if tag & tag::SAFE_IGNORE_MASK != 0 => Field::Unknown { tag, bytes: d.length_prefixed()? },
            _ => return Err(VersionEditProblem::UnknownTag),
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, VersionEditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.decoder.is_empty() {
            return None;
        }
        let offset = self.decoder.offset();
        let field = match self.decoder.varint32() {
            Ok(tag) => self.field(tag).map_err(|problem| VersionEditError { offset, tag, problem }),
            Err(e) => Err(VersionEditError { offset, tag: 0, problem: e.into() }),
        };
        self.broken = field.is_err();
        Some(field)
    }
}

fn internal_key<'a>(d: &mut Decoder<'a>) -> Result<InternalKey<'a>, VersionEditProblem> {
    InternalKey::new(d.length_prefixed()?).ok_or(VersionEditProblem::ShortKey)
}

fn one_byte(custom_tag: u32, field: &[u8]) -> Result<u8, VersionEditProblem> {
    match field {
        [byte] => Ok(*byte),
        _ => Err(VersionEditProblem::WrongSize { custom_tag, len: field.len() }),
    }
}

fn wal_addition(d: &mut Decoder<'_>) -> Result<WalAddition, VersionEditProblem> {
    let mut wal = WalAddition { number: FileNumber::new(d.varint64()?), synced_size: None };
    loop {
        match d.varint32()? {
            1 => return Ok(wal),
            2 => wal.synced_size = Some(d.varint64()?),
            custom_tag => return Err(VersionEditProblem::UnknownCustomTag { custom_tag }),
        }
    }
}

fn blob_custom_fields<'a>(d: &mut Decoder<'a>) -> Result<Vec<(u32, &'a [u8])>, VersionEditProblem> {
    let mut fields = Vec::new();
    loop {
        match d.varint32()? {
            0 => return Ok(fields),
            custom_tag if custom_tag & custom::NON_SAFE_IGNORE_MASK != 0 => {
                return Err(VersionEditProblem::UnknownCustomTag { custom_tag });
            }
            tag => fields.push((tag, d.length_prefixed()?)),
        }
    }
}

fn new_file<'a>(d: &mut Decoder<'a>, tag: u32) -> Result<NewFile<'a>, VersionEditProblem> {
    let level = d.varint32()?;
    let number = FileNumber::new(d.varint64()?);
    let path_id = if tag == tag::NEW_FILE_3 { checked_path_id(d.varint32()?)? } else { 0 };
    let file_size = d.varint64()?;
    let (smallest, largest) = (internal_key(d)?, internal_key(d)?);
    let (smallest_seqno, largest_seqno) = if tag == tag::NEW_FILE {
        // The oldest form has none; RocksDB then keeps the empty range, and writes it again as such.
        (SequenceNumber::MAX, SequenceNumber::new(0))
    } else {
        (SequenceNumber::new(d.varint64()?), SequenceNumber::new(d.varint64()?))
    };
    let mut file = NewFile::new(level, number, file_size, smallest, largest, smallest_seqno, largest_seqno);
    file.path_id = path_id;
    if tag == tag::NEW_FILE_4 {
        loop {
            let custom_tag = d.varint32()?;
            if custom_tag == custom::TERMINATE {
                break;
            }
            custom_field(&mut file, custom_tag, d.length_prefixed()?)?;
        }
    }
    Ok(file)
}

fn checked_path_id(id: u32) -> Result<u8, VersionEditProblem> {
    match u8::try_from(id) {
        Ok(id @ 0..=3) => Ok(id),
        other => Err(VersionEditProblem::PathId(other.unwrap_or(u8::MAX))),
    }
}

fn custom_field<'a>(file: &mut NewFile<'a>, custom_tag: u32, field: &'a [u8]) -> Result<(), VersionEditProblem> {
    let varint = || Decoder::new(field).varint64();
    match custom_tag {
        custom::PATH_ID => file.path_id = checked_path_id(u32::from(one_byte(custom_tag, field)?))?,
        custom::NEED_COMPACTION => file.marked_for_compaction = one_byte(custom_tag, field)? == 1,
        custom::MIN_LOG_NUMBER_TO_KEEP_HACK => {
            file.min_log_number_to_keep = Some(FileNumber::new(Decoder::new(field).fixed64()?));
        }
        custom::OLDEST_BLOB_FILE_NUMBER => file.oldest_blob_file_number = Some(FileNumber::new(varint()?)),
        custom::OLDEST_ANCESTER_TIME => file.oldest_ancester_time = Some(varint()?),
        custom::FILE_CREATION_TIME => file.file_creation_time = Some(varint()?),
        custom::FILE_CHECKSUM => file.file_checksum = Some(field),
        custom::FILE_CHECKSUM_FUNC_NAME => file.file_checksum_func_name = Some(field),
        custom::TEMPERATURE => file.temperature = Some(one_byte(custom_tag, field)?),
        custom::MIN_TIMESTAMP => file.min_timestamp = Some(field),
        custom::MAX_TIMESTAMP => file.max_timestamp = Some(field),
        custom::UNIQUE_ID => {
            let mut d = Decoder::new(field);
            let id = SstUniqueId(d.fixed64()?, d.fixed64()?);
            if !d.is_empty() {
                return Err(VersionEditProblem::WrongSize { custom_tag, len: field.len() });
            }
            file.unique_id = Some(id);
        }
        custom::EPOCH_NUMBER => file.epoch_number = Some(varint()?),
        custom::COMPENSATED_RANGE_DELETION_SIZE => file.compensated_range_deletion_size = Some(varint()?),
        custom::TAIL_SIZE => file.tail_size = Some(varint()?),
        custom::USER_DEFINED_TIMESTAMPS_PERSISTED => {
            file.user_defined_timestamps_persisted = Some(one_byte(custom_tag, field)? == 1);
        }
        custom::FILE_OPEN_METADATA => file.file_open_metadata = Some(field),
        tag if tag & custom::NON_SAFE_IGNORE_MASK != 0 => {
            return Err(VersionEditProblem::UnknownCustomTag { custom_tag });
        }
        tag => file.unknown.push((tag, field)),
    }
    Ok(())
}

//! Encoding of VersionEdits, in the order of RocksDB's `VersionEdit::EncodeTo`.

use super::{NewFile, VersionEdit, custom, tag};
use crate::rocks::coding::{put_length_prefixed, put_varint};

pub(super) fn edit(edit: &VersionEdit<'_>, out: &mut Vec<u8>) {
    bytes(tag::DB_ID, edit.db_id, out);
    bytes(tag::COMPARATOR, edit.comparator, out);
    number(tag::LOG_NUMBER, edit.log_number.map(|n| n.get()), out);
    number(tag::PREV_LOG_NUMBER, edit.prev_log_number.map(|n| n.get()), out);
    number(tag::NEXT_FILE_NUMBER, edit.next_file_number.map(|n| n.get()), out);
    number(tag::MAX_COLUMN_FAMILY, edit.max_column_family.map(|id| u64::from(id.get())), out);
    number(tag::MIN_LOG_NUMBER_TO_KEEP, edit.min_log_number_to_keep.map(|n| n.get()), out);
    number(tag::LAST_SEQUENCE, edit.last_sequence.map(|n| n.get()), out);
    for (level, key) in &edit.compact_cursors {
        put_varint(out, tag::COMPACT_CURSOR);
        put_varint(out, *level);
        put_length_prefixed(out, key.as_bytes());
    }
    for file in &edit.deleted_files {
        put_varint(out, tag::DELETED_FILE);
        put_varint(out, file.level);
        put_varint(out, file.number.get());
    }
    for file in &edit.new_files {
        new_file(file, out);
    }
    for blob in &edit.blob_file_additions {
        put_varint(out, tag::BLOB_FILE_ADDITION);
        put_varint(out, blob.number.get());
        put_varint(out, blob.total_blob_count);
        put_varint(out, blob.total_blob_bytes);
        put_length_prefixed(out, blob.checksum_method);
        put_length_prefixed(out, blob.checksum_value);
        blob_custom_fields(&blob.unknown, out);
    }
    for garbage in &edit.blob_file_garbages {
        put_varint(out, tag::BLOB_FILE_GARBAGE);
        put_varint(out, garbage.number.get());
        put_varint(out, garbage.garbage_blob_count);
        put_varint(out, garbage.garbage_blob_bytes);
        blob_custom_fields(&garbage.unknown, out);
    }
    for wal in &edit.wal_additions {
        let mut body = Vec::new();
        put_varint(&mut body, wal.number.get());
        if let Some(size) = wal.synced_size {
            put_varint(&mut body, 2u32);
            put_varint(&mut body, size);
        }
        put_varint(&mut body, 1u32);
        bytes(tag::WAL_ADDITION_2, Some(&body), out);
    }
    if let Some(below) = edit.wal_deletion {
        let mut body = Vec::new();
        put_varint(&mut body, below.get());
        bytes(tag::WAL_DELETION_2, Some(&body), out);
    }
    if edit.column_family.get() != 0 {
        number(tag::COLUMN_FAMILY, Some(u64::from(edit.column_family.get())), out);
    }
    bytes(tag::COLUMN_FAMILY_ADD, edit.column_family_add, out);
    if edit.column_family_drop {
        put_varint(out, tag::COLUMN_FAMILY_DROP);
    }
    number(tag::IN_ATOMIC_GROUP, edit.in_atomic_group.map(u64::from), out);
    bytes(tag::FULL_HISTORY_TS_LOW, edit.full_history_ts_low, out);
    let persist = edit.persist_user_defined_timestamps.map(|yes| [u8::from(yes)]);
    bytes(tag::PERSIST_USER_DEFINED_TIMESTAMPS, persist.as_ref().map(|b| &b[..]), out);
    bytes(tag::SUBCOMPACTION_PROGRESS, edit.subcompaction_progress, out);
    if let Some(size) = edit.last_compacted_manifest_file_size {
        bytes(tag::LAST_COMPACTED_MANIFEST_FILE_SIZE, Some(&varint(size)), out);
    }
    for (tag, field) in &edit.unknown {
        bytes(*tag, Some(field), out);
    }
}

fn new_file(file: &NewFile<'_>, out: &mut Vec<u8>) {
    put_varint(out, tag::NEW_FILE_4);
    put_varint(out, file.level);
    put_varint(out, file.number.get());
    put_varint(out, file.file_size);
    put_length_prefixed(out, file.smallest.as_bytes());
    put_length_prefixed(out, file.largest.as_bytes());
    put_varint(out, file.smallest_seqno.get());
    put_varint(out, file.largest_seqno.get());
    let varint_field = |tag: u32, value: Option<u64>, out: &mut Vec<u8>| {
        bytes(tag, value.map(varint).as_deref(), out);
    };
    let byte_field = |tag: u32, value: Option<u8>, out: &mut Vec<u8>| {
        bytes(tag, value.map(|b| [b]).as_ref().map(|b| &b[..]), out);
    };
    varint_field(custom::OLDEST_ANCESTER_TIME, file.oldest_ancester_time, out);
    varint_field(custom::FILE_CREATION_TIME, file.file_creation_time, out);
    varint_field(custom::EPOCH_NUMBER, file.epoch_number, out);
    bytes(custom::FILE_CHECKSUM, file.file_checksum, out);
    bytes(custom::FILE_CHECKSUM_FUNC_NAME, file.file_checksum_func_name, out);
    byte_field(custom::PATH_ID, (file.path_id != 0).then_some(file.path_id), out);
    byte_field(custom::TEMPERATURE, file.temperature, out);
    byte_field(custom::NEED_COMPACTION, file.marked_for_compaction.then_some(1), out);
    let min_log = file.min_log_number_to_keep.map(|n| n.get().to_le_bytes());
    bytes(custom::MIN_LOG_NUMBER_TO_KEEP_HACK, min_log.as_ref().map(|b| &b[..]), out);
    varint_field(custom::OLDEST_BLOB_FILE_NUMBER, file.oldest_blob_file_number.map(|n| n.get()), out);
    let unique_id = file.unique_id.map(|id| [id.0.to_le_bytes(), id.1.to_le_bytes()].concat());
    bytes(custom::UNIQUE_ID, unique_id.as_deref(), out);
    varint_field(custom::COMPENSATED_RANGE_DELETION_SIZE, file.compensated_range_deletion_size, out);
    varint_field(custom::TAIL_SIZE, file.tail_size, out);
    byte_field(custom::USER_DEFINED_TIMESTAMPS_PERSISTED, file.user_defined_timestamps_persisted.map(u8::from), out);
    bytes(custom::MIN_TIMESTAMP, file.min_timestamp, out);
    bytes(custom::MAX_TIMESTAMP, file.max_timestamp, out);
    bytes(custom::FILE_OPEN_METADATA, file.file_open_metadata, out);
    for (tag, field) in &file.unknown {
        bytes(*tag, Some(field), out);
    }
    put_varint(out, custom::TERMINATE);
}

fn blob_custom_fields(fields: &[(u32, &[u8])], out: &mut Vec<u8>) {
    for (tag, field) in fields {
        bytes(*tag, Some(field), out);
    }
    put_varint(out, 0u32);
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

fn number(tag: u32, value: Option<u64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        put_varint(out, tag);
        put_varint(out, value);
    }
}

fn bytes(tag: u32, value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        put_varint(out, tag);
        put_length_prefixed(out, value);
    }
}

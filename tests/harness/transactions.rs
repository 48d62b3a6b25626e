//! A transaction database: what the Rust crate does not offer of it, through RocksDB's C interface.
//!
//! Owns: every pointer that it is given, until it is dropped. Owns also how a transaction's records look in the log, byte
//! for byte, so that the model can tell what the archive must hold.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

use librocksdb_sys as ffi;
use pitr_archive::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::write_batch::{self, WriteBatchBuilder, WritePolicy},
};
use rocksdb::{AsRawPtr, DB, Options};

use super::{
    program::{Op, Settings},
    server::{self, Dump},
};

/// An open transaction database.
pub struct TransactionDb {
    db: *mut ffi::rocksdb_transactiondb_t,
    /// The same without transactions.
    base: *mut ffi::rocksdb_t,
    families: BTreeMap<String, *mut ffi::rocksdb_column_family_handle_t>,
    pending: BTreeMap<String, *mut ffi::rocksdb_transaction_t>,
    settings: Settings,
    policy: WritePolicy,
}

/// Calls a function of the C interface that reports an error in its last argument.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {{
        let mut error = ptr::null_mut();
        // SAFETY: every pointer comes from this interface and is owned by the database at hand; lengths are those of the
        // slices they come from.
        let value = unsafe { ffi::$name($($argument,)* &mut error) };
        taken(error).map(|()| value)
    }};
}

fn taken(error: *mut libc::c_char) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: RocksDB gave a string that ends with a zero and that is freed with its own function.
    unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        Err(text)
    }
}

fn chars(bytes: &[u8]) -> (*const libc::c_char, usize) {
    (bytes.as_ptr().cast(), bytes.len())
}

impl TransactionDb {
    /// Opens a database with every column family it has; creates it when there is none.
    pub fn open(dir: &Path, options: &Options, settings: &Settings, policy: WritePolicy) -> Result<Self, String> {
        let names = match dir.join("CURRENT").exists() {
            true => DB::list_cf(options, dir).map_err(|e| e.to_string())?,
            false => vec!["default".to_owned()],
        };
        let c_names: Vec<_> = names.iter().map(|name| CString::new(name.as_str()).expect("no zero")).collect();
        let name_pointers: Vec<_> = c_names.iter().map(|name| name.as_ptr()).collect();
        let family_options: Vec<_> = names.iter().map(|_| server::family_options(settings)).collect();
        // SAFETY: the pointers are used while `family_options` lives.
        let raw = |options: &Options| unsafe { options.as_raw_ptr().cast_const() };
        let option_pointers: Vec<_> = family_options.iter().map(raw).collect();
        let mut handles = vec![ptr::null_mut(); names.len()];
        let path = CString::new(dir.as_os_str().as_bytes()).expect("no zero");
        // SAFETY: made and freed here.
        let transaction_options = unsafe { ffi::rocksdb_transactiondb_options_create() };
        // SAFETY: as above; it sets a plain field.
        unsafe { ffi::rocksdb_transactiondb_options_set_write_policy(transaction_options, number(policy)) };
        let opened = call!(rocksdb_transactiondb_open_column_families(
            options.as_raw_ptr(),
            transaction_options,
            path.as_ptr(),
            names.len() as libc::c_int,
            name_pointers.as_ptr(),
            option_pointers.as_ptr(),
            handles.as_mut_ptr()
        ));
        // SAFETY: made above.
        unsafe { ffi::rocksdb_transactiondb_options_destroy(transaction_options) };
        let db = opened?;
        // SAFETY: the database is open.
        let base = unsafe { ffi::rocksdb_transactiondb_get_base_db(db) };
        let families = names.into_iter().zip(handles).collect();
        let mut opened = Self { db, base, families, pending: BTreeMap::new(), settings: settings.clone(), policy };
        opened.find_pending();
        Ok(opened)
    }

    fn find_pending(&mut self) {
        let mut count = 0;
        // SAFETY: RocksDB gives an array of `count` transactions, all of which are ours.
        unsafe {
            let found = ffi::rocksdb_transactiondb_get_prepared_transactions(self.db, &mut count);
            for n in 0..count {
                let transaction = *found.add(n);
                let mut length = 0;
                let name = ffi::rocksdb_transaction_get_name(transaction, &mut length);
                let bytes = std::slice::from_raw_parts(name.cast::<u8>(), length).to_vec();
                ffi::rocksdb_free(name.cast());
                self.pending.insert(String::from_utf8(bytes).expect("names of ours are text"), transaction);
            }
            ffi::rocksdb_free(found.cast());
        }
    }

    /// Names of the prepared transactions.
    pub fn pending(&self) -> Vec<String> {
        self.pending.keys().cloned().collect()
    }

    /// The latest sequence number.
    pub fn latest_sequence(&self) -> u64 {
        // SAFETY: the database is open.
        unsafe { ffi::rocksdb_get_latest_sequence_number(self.base) }
    }

    fn family(&self, name: &str) -> *mut ffi::rocksdb_column_family_handle_t {
        *self.families.get(name).unwrap_or_else(|| panic!("no column family {name}"))
    }

    fn id(&self, name: &str) -> ColumnFamilyId {
        // SAFETY: the handle is one of ours.
        ColumnFamilyId::new(unsafe { ffi::rocksdb_column_family_handle_get_id(self.family(name)) })
    }

    fn push(&self, batch: &mut WriteBatchBuilder, op: &Op) {
        batch.push(&match op {
            Op::Put(cf, key, value) => write_batch::Op::Put { cf: self.id(cf), key, value },
            Op::Delete(cf, key) => write_batch::Op::Delete { cf: self.id(cf), key },
            Op::SingleDelete(cf, key) => write_batch::Op::SingleDelete { cf: self.id(cf), key },
            Op::DeleteRange(cf, begin, end) => write_batch::Op::DeleteRange { cf: self.id(cf), begin, end },
            Op::Merge(cf, key, operand) => write_batch::Op::Merge { cf: self.id(cf), key, operand },
            Op::LogData(blob) => write_batch::Op::LogData { blob },
            Op::PutEntity(..) | Op::TimedPut(..) => panic!("a transaction database refuses it: {op:?}"),
        });
    }

    fn builder(&self) -> WriteBatchBuilder {
        WriteBatchBuilder::new(SequenceNumber::new(self.latest_sequence() + 1))
    }

    /// The record that a plain write of these operations makes.
    pub fn plain_record(&self, ops: &[Op]) -> Vec<u8> {
        let mut batch = self.builder();
        ops.iter().for_each(|op| self.push(&mut batch, op));
        if self.policy != WritePolicy::WriteCommitted {
            batch.push(&write_batch::Op::Noop);
        }
        batch.finish()
    }

    /// Writes without a transaction of the caller's.
    pub fn write(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut batch = self.builder();
        ops.iter().for_each(|op| self.push(&mut batch, op));
        let bytes = batch.finish();
        let (rep, size) = chars(&bytes);
        // SAFETY: made from bytes of a write batch.
        let (batch, options) =
            unsafe { (ffi::rocksdb_writebatch_create_from(rep, size), ffi::rocksdb_writeoptions_create()) };
        let done = call!(rocksdb_transactiondb_write(self.db, options, batch));
        // SAFETY: made above.
        unsafe {
            ffi::rocksdb_writeoptions_destroy(options);
            ffi::rocksdb_writebatch_destroy(batch);
        }
        done
    }

    /// Prepares a transaction; answers with the record that it must have made.
    pub fn prepare(&mut self, name: &str, ops: &[Op]) -> Result<Vec<u8>, String> {
        let mut record = self.builder();
        record.push(&write_batch::Op::BeginPrepare {
            // Its last section is written as by WritePrepared.
            policy: match self.policy {
                WritePolicy::WriteUnprepared => WritePolicy::WritePrepared,
                policy => policy,
            },
        });
        ops.iter().for_each(|op| self.push(&mut record, op));
        record.push(&write_batch::Op::EndPrepare { xid: name.as_bytes() });
        // SAFETY: all made here; the transaction is kept.
        let transaction = unsafe {
            let (write, options) = (ffi::rocksdb_writeoptions_create(), ffi::rocksdb_transaction_options_create());
            let transaction = ffi::rocksdb_transaction_begin(self.db, write, options, ptr::null_mut());
            ffi::rocksdb_transaction_options_destroy(options);
            ffi::rocksdb_writeoptions_destroy(write);
            transaction
        };
        self.pending.insert(name.to_owned(), transaction);
        let (bytes, length) = chars(name.as_bytes());
        call!(rocksdb_transaction_set_name(transaction, bytes, length))?;
        for op in ops {
            match op {
                Op::Put(family, key, value) => {
                    let ((key, key_len), (value, len)) = (chars(key), chars(value));
                    call!(rocksdb_transaction_put_cf(transaction, self.family(family), key, key_len, value, len))?;
                }
                Op::Delete(family, key) => {
                    let (key, len) = chars(key);
                    call!(rocksdb_transaction_delete_cf(transaction, self.family(family), key, len))?;
                }
                Op::Merge(family, key, operand) => {
                    let ((key, key_len), (operand, len)) = (chars(key), chars(operand));
                    call!(rocksdb_transaction_merge_cf(transaction, self.family(family), key, key_len, operand, len))?;
                }
                other => panic!("not in a transaction of these tests: {other:?}"),
            }
        }
        call!(rocksdb_transaction_prepare(transaction))?;
        Ok(record.finish())
    }

    /// Commits a prepared transaction; answers with the record that it must have made.
    pub fn commit(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let mut record = self.builder();
        record.push(&write_batch::Op::Commit { xid: name.as_bytes() });
        let transaction = self.pending.remove(name).expect("a prepared transaction");
        let done = call!(rocksdb_transaction_commit(transaction));
        // SAFETY: it is ours, and no longer needed.
        unsafe { ffi::rocksdb_transaction_destroy(transaction) };
        done.map(|()| record.finish())
    }

    /// Rolls a prepared transaction back; answers with the record that it must have made. `undo` are the operations that
    /// bring back what was before, which only policies that write before the commit need.
    pub fn roll_back(&mut self, name: &str, undo: &[Op]) -> Result<Vec<u8>, String> {
        let mut record = self.builder();
        if self.policy != WritePolicy::WriteCommitted {
            undo.iter().for_each(|op| self.push(&mut record, op));
        }
        record.push(&write_batch::Op::Rollback { xid: name.as_bytes() });
        let transaction = self.pending.remove(name).expect("a prepared transaction");
        let done = call!(rocksdb_transaction_rollback(transaction));
        // SAFETY: it is ours, and no longer needed.
        unsafe { ffi::rocksdb_transaction_destroy(transaction) };
        done.map(|()| record.finish())
    }

    /// Flushes these column families, all when empty.
    pub fn flush(&mut self, names: &[String]) -> Result<(), String> {
        let names: Vec<_> = if names.is_empty() { self.families.keys().cloned().collect() } else { names.to_vec() };
        for name in names {
            // SAFETY: freed below.
            let options = unsafe { ffi::rocksdb_flushoptions_create() };
            let done = call!(rocksdb_transactiondb_flush_cf(self.db, options, self.family(&name)));
            // SAFETY: made above.
            unsafe { ffi::rocksdb_flushoptions_destroy(options) };
            done?;
        }
        Ok(())
    }

    /// Compacts everything in a column family.
    pub fn compact(&mut self, name: &str) {
        // SAFETY: made and freed here; no key means from the first to the last.
        unsafe {
            let options = ffi::rocksdb_compactoptions_create();
            ffi::rocksdb_compactoptions_set_bottommost_level_compaction(options, 2);
            ffi::rocksdb_compact_range_cf_opt(self.base, self.family(name), options, ptr::null(), 0, ptr::null(), 0);
            ffi::rocksdb_compactoptions_destroy(options);
        }
    }

    /// Creates a column family.
    pub fn create(&mut self, name: &str) -> Result<(), String> {
        let options = server::family_options(&self.settings);
        let c_name = CString::new(name).expect("no zero");
        let handle = call!(rocksdb_transactiondb_create_column_family(self.db, options.as_raw_ptr(), c_name.as_ptr()))?;
        self.families.insert(name.to_owned(), handle);
        Ok(())
    }

    /// Drops one.
    pub fn drop_family(&mut self, name: &str) -> Result<(), String> {
        let handle = self.families.remove(name).expect("a column family");
        let done = call!(rocksdb_drop_column_family(self.base, handle));
        // SAFETY: it is ours, and no longer needed.
        unsafe { ffi::rocksdb_column_family_handle_destroy(handle) };
        done
    }

    /// Everything committed.
    pub fn dump(&self) -> Result<Dump, String> {
        let mut content = Dump::new();
        for (name, family) in &self.families {
            let mut pairs = Vec::new();
            // SAFETY: made and freed here; keys and values are copied before the iterator moves.
            unsafe {
                let options = ffi::rocksdb_readoptions_create();
                ffi::rocksdb_readoptions_set_verify_checksums(options, 1);
                let iterator = ffi::rocksdb_transactiondb_create_iterator_cf(self.db, options, *family);
                ffi::rocksdb_iter_seek_to_first(iterator);
                while ffi::rocksdb_iter_valid(iterator) != 0 {
                    let (mut key_len, mut len) = (0, 0);
                    let key = ffi::rocksdb_iter_key(iterator, &mut key_len);
                    let value = ffi::rocksdb_iter_value(iterator, &mut len);
                    pairs.push((
                        std::slice::from_raw_parts(key.cast::<u8>(), key_len).to_vec(),
                        std::slice::from_raw_parts(value.cast::<u8>(), len).to_vec(),
                    ));
                    ffi::rocksdb_iter_next(iterator);
                }
                let mut error = ptr::null_mut();
                ffi::rocksdb_iter_get_error(iterator, &mut error);
                ffi::rocksdb_iter_destroy(iterator);
                ffi::rocksdb_readoptions_destroy(options);
                taken(error)?;
            }
            content.insert(name.clone(), pairs);
        }
        Ok(content)
    }
}

impl Drop for TransactionDb {
    fn drop(&mut self) {
        // The database ends what is prepared itself, after its compactions: one that still runs takes what a transaction
        // wrote that is gone for committed.
        // SAFETY: all of these are ours.
        unsafe {
            for family in self.families.values() {
                ffi::rocksdb_column_family_handle_destroy(*family);
            }
            ffi::rocksdb_transactiondb_close_base_db(self.base);
            ffi::rocksdb_transactiondb_close(self.db);
        }
    }
}

/// RocksDB's `TxnDBWritePolicy`.
const fn number(policy: WritePolicy) -> libc::c_int {
    match policy {
        WritePolicy::WriteCommitted => 0,
        WritePolicy::WritePrepared => 1,
        WritePolicy::WriteUnprepared => 2,
    }
}

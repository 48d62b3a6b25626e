//! Importing a column family that another database exported: only RocksDB's C interface has it.

use std::{ffi::CString, path::Path};

use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr, DB};

fn check(error: *mut std::ffi::c_char) {
    if !error.is_null() {
        // SAFETY: RocksDB's messages end with a zero.
        panic!("{}", unsafe { std::ffi::CStr::from_ptr(error) }.to_string_lossy());
    }
}

fn text(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// Makes a database with these pairs, exports it, and imports it into `db` as a new column family.
pub fn import(db: &DB, scratch: &Path, name: &str, pairs: &[(&str, &str)]) {
    let other = scratch.join("exporting");
    let exported = scratch.join("exported");
    let mut error = std::ptr::null_mut();
    // SAFETY: every pointer is RocksDB's own from the call before, used while what it belongs to lives.
    unsafe {
        let options = ffi::rocksdb_options_create();
        ffi::rocksdb_options_set_create_if_missing(options, 1);
        let names = [c"default".as_ptr()];
        let family_options: [*const ffi::rocksdb_options_t; 1] = [options];
        let mut handles = [std::ptr::null_mut()];
        let path = text(&other);
        let source = ffi::rocksdb_open_column_families(
            options,
            path.as_ptr(),
            1,
            names.as_ptr(),
            family_options.as_ptr(),
            handles.as_mut_ptr(),
            &mut error,
        );
        check(error);
        let write = ffi::rocksdb_writeoptions_create();
        for (key, value) in pairs {
            ffi::rocksdb_put(
                source,
                write,
                key.as_ptr().cast(),
                key.len(),
                value.as_ptr().cast(),
                value.len(),
                &mut error,
            );
            check(error);
        }
        let checkpoint = ffi::rocksdb_checkpoint_object_create(source, &mut error);
        check(error);
        let path = text(&exported);
        let metadata = ffi::rocksdb_checkpoint_export_column_family(checkpoint, handles[0], path.as_ptr(), &mut error);
        check(error);
        let how = ffi::rocksdb_import_column_family_options_create();
        let name = CString::new(name).unwrap();
        let imported = ffi::rocksdb_create_column_family_with_import(
            db.as_raw_ptr(),
            options,
            name.as_ptr(),
            how,
            metadata,
            &mut error,
        );
        check(error);
        ffi::rocksdb_column_family_handle_destroy(imported);
        ffi::rocksdb_import_column_family_options_destroy(how);
        ffi::rocksdb_export_import_files_metadata_destroy(metadata);
        ffi::rocksdb_checkpoint_object_destroy(checkpoint);
        ffi::rocksdb_writeoptions_destroy(write);
        ffi::rocksdb_column_family_handle_destroy(handles[0]);
        ffi::rocksdb_close(source);
        ffi::rocksdb_options_destroy(options);
    }
}

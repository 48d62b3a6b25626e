#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pitr_fuzz::bodies::run("version_edits", data));

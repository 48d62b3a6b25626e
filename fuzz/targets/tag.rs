#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pitr_fuzz::bodies::run("tag", data));

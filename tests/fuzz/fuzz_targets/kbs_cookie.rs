#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| integration_tests::entry::kbs_cookie(bytes));

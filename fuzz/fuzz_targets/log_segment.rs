#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("log_segment"),
    |bytes: &[u8]| thalweg_fuzz::run("log_segment", bytes)
);

#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("log_position"),
    |bytes: &[u8]| thalweg_fuzz::run("log_position", bytes)
);

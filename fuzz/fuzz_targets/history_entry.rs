#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("history_entry"),
    |bytes: &[u8]| thalweg_fuzz::run("history_entry", bytes)
);

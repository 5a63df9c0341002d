#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("changelog_record"),
    |bytes: &[u8]| thalweg_fuzz::run("changelog_record", bytes)
);

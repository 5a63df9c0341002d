#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("avro"),
    |bytes: &[u8]| thalweg_fuzz::run("avro", bytes)
);

//! The `thalweg` binary: built-in operators only.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> thalweg::Exit {
    thalweg::main_with(thalweg::macros::Registry::default())
}

//! thalweg-coordinator

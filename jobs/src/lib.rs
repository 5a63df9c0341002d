//! thalweg-jobs

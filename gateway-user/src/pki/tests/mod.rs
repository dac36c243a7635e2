//! Tests over certificates that openssl made.

mod answers;
mod files;
mod forgery;
mod paths;
mod signatures;

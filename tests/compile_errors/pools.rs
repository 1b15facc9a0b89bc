//! Pools whose keys or credentials have the wrong type.

use tower_refresh::{Credentials, CredentialsPool, RefreshLayer, StaticToken};

#[derive(Clone, PartialEq, Eq, Hash)]
struct Id(u64);

fn source() -> StaticToken {
    StaticToken::new("sesame".parse().unwrap())
}

fn key_without_a_name() {
    CredentialsPool::new(|_: &Id| Credentials::builder(source()));
}

fn builder_that_was_built() {
    CredentialsPool::new(|_: &u64| Credentials::builder(source()).build());
}

fn borrowed_key(pool: CredentialsPool<String>) {
    RefreshLayer::keyed(pool, |request| request.extensions().get::<String>().map(|it| it.as_str()));
}

fn key_of_one_body(pool: CredentialsPool<String>) {
    RefreshLayer::keyed(pool, |request: &http::Request<()>| request.extensions().get().cloned());
}

fn main() {}

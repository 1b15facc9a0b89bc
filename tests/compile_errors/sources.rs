//! Values that are no token source, no credentials and no store.

use std::io;

use tower_refresh::{Credentials, RefreshLayer, Renewal, StaticToken, TokenSet, source_fn};

struct NoSource;

fn source() -> StaticToken {
    StaticToken::new("sesame".parse().unwrap())
}

fn tokens() -> Result<TokenSet, io::Error> {
    Err(io::Error::other("down"))
}

fn type_without_an_impl() {
    RefreshLayer::new(NoSource);
    Credentials::new(NoSource);
}

fn builder_without_build() {
    RefreshLayer::new(Credentials::builder(source()).name("billing"));
}

fn closure_without_an_argument() {
    Credentials::new(|| async { TokenSet::bearer("sesame") });
}

fn closure_without_a_future() {
    Credentials::new(|_: Renewal| TokenSet::bearer("sesame"));
}

fn closure_with_another_error() {
    Credentials::new(|_: Renewal| async { tokens() });
    Credentials::new(source_fn(|_| async { tokens() }));
}

fn store_that_is_a_path() {
    Credentials::builder(source()).store("/var/lib/billing/tokens");
}

fn main() {}

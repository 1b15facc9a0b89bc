//! A fetch from the first source, and after a denial from the second.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Fallback, FallbackError};
use crate::error::TokenError;
use crate::source::info::{SourceInfo, Watch};
use crate::source::renewal::Renewal;
use crate::source::token_source::TokenSource;
use crate::token::TokenSet;

impl<A: TokenSource, B: TokenSource> TokenSource for Fallback<A, B> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.asked_second.store(false, Ordering::Relaxed);
        let denial = match self.first.fetch(renewal.clone()).await {
            Err(error) if error.is_refusal() => error,
            other => return other,
        };
        self.asked_second.store(true, Ordering::Relaxed);
        let result = self.second.fetch(renewal).await;
        result.map(TokenSet::beginning_session).map_err(|error| {
            // The first source may have sent a request, and will send another.
            let is_asked_again = error.is_unsent() && !self.first.info().remembers_refusals;
            let is_elsewhere =
                self.first.info().token_endpoint != self.second.info().token_endpoint;
            let error = FallbackError { denial, error }.into_token_error();
            let error = if is_elsewhere { error.of_other_source() } else { error };
            if is_asked_again { error.into_sent() } else { error }
        })
    }

    /// Returns the facts of the first source, and what follows from the second.
    fn info(&self) -> SourceInfo {
        let (first, second) = (self.first.info(), self.second.info());
        // A repetition asks both, and neither may repeat what was refused.
        let may_ask_again = first.fresh_proof || first.remembers_refusals;
        let fresh_proof = second.fresh_proof && may_ask_again;
        // A change of the second source's input does not end a failure of the first.
        let watch_second = second.watch.clone().filter(|_| may_ask_again).map(|second| {
            let asked_second = Arc::clone(&self.asked_second);
            Watch::new(move || asked_second.load(Ordering::Relaxed) && second.has_changed())
        });
        // A refresh token is spent by the second source if the first sends none.
        let spending = if first.sends_no_refresh_token { &second } else { &first };
        let (keeps_refresh_token, reuse_grace) =
            (spending.keeps_refresh_token, spending.reuse_grace);
        SourceInfo {
            keeps_refresh_token,
            reuse_grace,
            watch: first.watch.or(watch_second),
            fresh_proof,
            remembers_refusals: first.remembers_refusals && second.remembers_refusals,
            sends_no_refresh_token: first.sends_no_refresh_token && second.sends_no_refresh_token,
            ..first
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::source::testing::tokens;
    use crate::source::{Cause, source_fn};

    fn failing(error: TokenError) -> impl TokenSource {
        source_fn(move |_| std::future::ready(Err(error.clone())))
    }

    /// A source with these facts.
    struct With(SourceInfo);

    impl TokenSource for With {
        async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
            Err(TokenError::denied("gone"))
        }

        fn info(&self) -> SourceInfo {
            self.0.clone()
        }
    }

    #[test]
    fn refresh_token_that_only_the_second_sends_may_rotate() {
        let proof =
            || SourceInfo { sends_no_refresh_token: true, ..SourceInfo::new().rotates(false) };
        let grace = Duration::from_secs(9);
        let refresh = || SourceInfo::new().reuse_grace(grace);
        let facts = |first, second| {
            let info = With(first).or_else(With(second)).info();
            (info.keeps_refresh_token, info.reuse_grace)
        };
        assert_eq!(facts(proof(), refresh()), (false, Some(grace)));
        assert_eq!(facts(refresh(), proof()), (false, Some(grace)));
        assert_eq!(facts(proof(), proof()), (true, None));
        assert_eq!(facts(SourceInfo::new().rotates(false), refresh()), (true, None));
    }

    fn echo() -> impl TokenSource {
        source_fn(|renewal: Renewal| async move {
            assert_eq!(renewal.cause(), Cause::Rejected);
            renewal.previous().cloned().ok_or_else(|| TokenError::denied("no previous"))
        })
    }

    fn renewal() -> Renewal {
        Renewal::new(Cause::Rejected).with_previous(tokens("previous"))
    }

    #[tokio::test]
    async fn second_source_is_asked_the_same_after_a_denial() {
        let source = failing(TokenError::denied("gone")).or_else(echo());
        let fetched = source.fetch(renewal()).await.unwrap();
        assert_eq!(fetched.access_token().expose_secret(), "previous");
    }

    #[tokio::test]
    async fn other_error_or_success_of_the_first_is_the_result() {
        let unasked = || source_fn(|_| async { panic!("the second was asked") });
        for expected in
            [TokenError::transient("a"), TokenError::ambiguous("a"), TokenError::misconfigured("a")]
        {
            let source = failing(expected.clone()).or_else(unasked());
            let error = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(error.to_string(), expected.to_string());
        }
        assert!(echo().or_else(unasked()).fetch(renewal()).await.is_ok());
    }

    #[tokio::test]
    async fn error_of_the_second_also_has_the_denial() {
        let first = TokenError::denied("refused").with_code("invalid_grant");
        let second = TokenError::transient(io::Error::other("unreachable"))
            .with_code("slow_down")
            .with_description("later")
            .with_retry_after(Duration::from_secs(7));
        let source = failing(first).or_else(failing(second));
        let error = source.fetch(renewal()).await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(error.code(), Some("slow_down"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(
            error.to_string(),
            "no token for now: the first source was denied (token denied: refused: invalid_grant), and the second failed: unreachable: slow_down (later)"
        );
        let both: &FallbackError = error.get_ref().downcast_ref().unwrap();
        assert_eq!(both.denial().code(), Some("invalid_grant"));
        assert!(both.error().get_ref().is::<io::Error>());
    }

    #[tokio::test]
    async fn kind_of_the_second_error_is_kept() {
        for expected in [
            TokenError::transient("a"),
            TokenError::ambiguous("a"),
            TokenError::misconfigured("a"),
            TokenError::denied("a"),
        ] {
            let source = failing(TokenError::denied("gone")).or_else(failing(expected.clone()));
            let error = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(error.kind(), expected.kind());
        }
    }
}

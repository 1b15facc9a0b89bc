//! The error codes of `WWW-Authenticate` challenges.

use super::verdict::Verdict;

/// The registered error codes, each with its verdict on the token.
///
/// A code without a verdict (`Unknown`) is like no code: the status decides.
pub(super) const ERROR_CODES: [(&str, Verdict); 7] = [
    // RFC 6750 §3.1
    ("invalid_token", Verdict::Rejected),
    ("invalid_request", Verdict::Accepted),
    ("insufficient_scope", Verdict::Accepted),
    // RFC 9470 §3
    ("insufficient_user_authentication", Verdict::Accepted),
    // Continuous access evaluation, as Microsoft defines it
    ("insufficient_claims", Verdict::Accepted),
    // RFC 9449 §7.1 and §9: about the proof, not about the token
    ("invalid_dpop_proof", Verdict::Unknown),
    ("use_dpop_nonce", Verdict::Unknown),
];

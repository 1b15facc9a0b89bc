//! Buffers that leave no copy behind.

use zeroize::Zeroizing;

/// Creates a text that is wiped when it is dropped, with room for `capacity` bytes. A text that grows leaves a copy behind.
pub(super) fn text(capacity: usize) -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(capacity))
}

/// Appends to a buffer. `Vec` alone would free its old memory unwiped when it grows.
pub(super) fn append(buffer: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let length = buffer.len() + data.len();
    if length > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max(buffer.capacity() * 2)));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_data_follows_earlier_data() {
        let mut buffer = Zeroizing::new(Vec::new());
        for data in ["a", "", "bcd", "efghijklmnopqrst"] {
            append(&mut buffer, data.as_bytes());
        }
        assert_eq!(*buffer, b"abcdefghijklmnopqrst");
    }
}

//! Bytes as frames of HTTP/2: each with a length that fits.

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Frames with their lengths' lowest byte alone, and the last as long as what is there.
pub fn aligned(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let [length, kind, flags, stream] = *head;
        let (payload, rest) = rest.split_at(rest.len().min(length.into()));
        // The kinds that there are, and some that are not.
        frames.push(frame(kind % 12, flags, stream.into(), payload));
        bytes = rest;
    }
    frames
}

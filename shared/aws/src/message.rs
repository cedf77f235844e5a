//! A hint as the body of a message.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sheaf_core::{ChunkKey, Lane, Priority, TenantId, limits};
use sheaf_protocol::Hint;

const VERSION: u8 = 1;
/// A message is billed as one request up to this size. Source: SQS pricing, 64 KiB a request.
const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Body {
    v: u8,
    chunk: ChunkKey,
    tenant: TenantId,
    /// How long it was to wait before its first delivery, in ms.
    #[serde(default, skip_serializing_if = "is_zero")]
    delay: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pack: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hedge: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The body of a hint's message. Its pack rides along if the whole is billed as one request.
pub fn encode(hint: &Hint, delay_ms: u64) -> String {
    let pack = hint.pack.as_ref().filter(|pack| pack.len() <= limits::INLINE_PACK_BYTES_MAX);
    let mut body = Body {
        v: VERSION,
        chunk: hint.key,
        tenant: hint.tenant.clone(),
        delay: delay_ms,
        pack: pack.map(|pack| BASE64_STANDARD.encode(pack)),
        hedge: hint.hedge,
    };
    let text = |body: &Body| serde_json::to_string(body).expect("plain structs become JSON");
    let whole = text(&body);
    if whole.len() <= BODY_BYTES_MAX {
        return whole;
    }
    body.pack = None;
    text(&body)
}

/// The hint in a message of the queue of a lane and priority, and the delay it was sent with; `None` if it is none. A pack
/// that cannot be read is dropped, being a cache.
pub fn decode(body: &str, lane: Lane, priority: Priority) -> Option<(Hint, u64)> {
    let body: Body = serde_json::from_str(body).ok().filter(|body: &Body| body.v == VERSION)?;
    let pack = body.pack.and_then(|pack| BASE64_STANDARD.decode(pack).ok()).map(Into::into);
    Some((Hint { key: body.chunk, tenant: body.tenant, lane, priority, pack, hedge: body.hedge }, body.delay))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sheaf_core::JobId;

    use super::*;

    fn hint(pack: Option<Bytes>) -> Hint {
        let key = ChunkKey { job: JobId::from_bytes([7; 16]), number: 3 };
        Hint { key, tenant: TenantId::default(), lane: Lane::Spot, priority: Priority::High, pack, hedge: false }
    }

    #[test]
    fn a_hint_comes_back_as_it_was_sent() {
        for pack in [None, Some(Bytes::from_static(b"")), Some(Bytes::from(vec![0xfe; 48_000]))] {
            let sent = hint(pack);
            let (got, delay_ms) = decode(&encode(&sent, 17), Lane::Spot, Priority::High).expect("a hint");
            assert_eq!((got.key, got.tenant, got.pack, delay_ms), (sent.key, sent.tenant, sent.pack, 17));
        }
        let golden = r#"{"v":1,"chunk":"job_07070707070707070707070707070707/3","tenant":"default","pack":"AQI="}"#;
        assert_eq!(encode(&hint(Some(Bytes::from_static(&[1, 2]))), 0), golden);
        let hedge = Hint { hedge: true, ..hint(None) };
        let golden = r#"{"v":1,"chunk":"job_07070707070707070707070707070707/3","tenant":"default","hedge":true}"#;
        assert_eq!(encode(&hedge, 0), golden);
        assert!(decode(golden, Lane::OnDemand, Priority::High).is_some_and(|(hint, _)| hint.hedge));
    }

    #[test]
    fn a_pack_that_would_cost_another_request_is_left_out() {
        let body = encode(&hint(Some(Bytes::from(vec![1; limits::INLINE_PACK_BYTES_MAX]))), 0);
        assert!(body.len() < 200, "48 KiB become 64 KiB of base64, and the rest of the body is beyond");
        assert!(encode(&hint(Some(Bytes::from(vec![1; limits::INLINE_PACK_BYTES_MAX - 200]))), 0).len() > 60_000);
    }

    #[test]
    fn what_is_no_hint_is_told_apart() {
        for body in ["", "{}", r#"{"v":9,"chunk":"job_07070707070707070707070707070707/3","tenant":"default"}"#] {
            assert!(decode(body, Lane::Spot, Priority::High).is_none(), "{body}");
        }
    }
}

//! The lookups of keys that an address has left.

use super::*;

#[test]
fn the_lookups_of_an_address_are_limited_by_its_second_or_else_by_its_minute() {
    let address = |limit| ("CARGA_LIMIT_ADDRESS", limit);
    for (settings, expected) in [
        // One comes back each second.
        ([("CARGA_LIMIT_BURST", "1"), address("7")], Some(10..=12)),
        ([OFF, address("7")], Some(7..=7)),
        ([OFF, address("off")], None),
    ] {
        let limiter = limits(&settings).0.unwrap();
        for from in [ONE, OTHER] {
            let allowance = limiter.lookup_allowance(from.parse().unwrap());
            let taken = allowance.map(|allowance| (0..50).filter(|_| allowance.take()).count());
            match (taken, &expected) {
                (Some(taken), Some(expected)) => assert!(expected.contains(&taken), "{taken}"),
                (taken, expected) => assert!(taken.is_none() && expected.is_none()),
            }
        }
    }
}

#[tokio::test]
async fn every_request_has_the_lookups_of_its_address() {
    let settings = [OFF, ("CARGA_LIMIT_ADDRESS", "3")];
    let look_up = async |request: Request, _: Next| {
        let allowance = request.extensions().get::<LookupAllowance>();
        match allowance.unwrap().take() {
            true => StatusCode::ACCEPTED,
            false => StatusCode::NO_CONTENT,
        }
    };
    let router = Router::new()
        .route("/", any(async || "ok"))
        .layer(from_fn(look_up))
        .layer(from_fn_with_state(limits(&settings), refused_layer));
    for address in [ONE, OTHER] {
        for expected in [202, 202, 202, 429] {
            assert_eq!(status(&router, address, None).await, expected);
        }
    }
}

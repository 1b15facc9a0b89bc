//! Under random faults without a lost response, no refresh token is spent twice, and all workers agree in the end.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tower_refresh::testing::Fault;

use crate::world::{Order, SECOND, Step, World, access};

/// Numbers that a seed repeats (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// Faults that prevent the save after a token was sent are excluded: they lead to one more attempt, which the server may
/// treat as reuse.
fn order(dice: &mut Dice) -> (Step, Order) {
    let before = [Step::Lock, Step::Load, Step::SaveIntent, Step::IsHeld];
    match dice.roll(5) {
        0 => (dice.pick(&before), Order::Fail),
        1 => (dice.pick(&before), Order::Hang),
        2 => (
            dice.pick(&[Step::SaveIntent, Step::SaveTokens, Step::SaveRest]),
            Order::FailAfterwards,
        ),
        3 => (Step::IsHeld, Order::LoseLock),
        _ => {
            let any = [before.as_slice(), &[Step::SaveTokens, Step::SaveRest, Step::Release]];
            (dice.pick(&any.concat()), Order::Delay(SECOND * (1 + dice.roll(3) as u32)))
        }
    }
}

async fn play(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new();
    let mut workers = world.workers(4);
    let mut asking = Vec::new();
    let mut told = Vec::new();
    for _ in 0..60 {
        let at = dice.roll(4) as usize;
        let worker = workers[at].clone();
        match dice.roll(12) {
            0..=3 => {
                let server = world.server.clone();
                asking.push(tokio::spawn(async move {
                    if let Ok(tokens) = worker.tokens().await {
                        assert!(server.is_live(access(&tokens)), "{seed}");
                    }
                }));
            }
            4 | 5 => asking.push(tokio::spawn(async move { drop(worker.refresh().await) })),
            6 | 7 => {
                let (step, order) = order(&mut dice);
                told.push(format!("{at}: {step:?} {order:?}"));
                worker.store.order(step, order);
            }
            8 => world.server.token_faults().once(match dice.roll(3) {
                0 => Fault::unavailable(),
                1 => Fault::drop_connection(),
                _ => Fault::normal().after_processing().delay(SECOND * 2),
            }),
            9 => {
                let session = world.server.issue();
                told.push(format!("{at}: log in"));
                asking.push(tokio::spawn(async move { drop(worker.log_in(session).await) }));
            }
            10 if dice.roll(4) == 0 => {
                told.push(format!("{at}: log out"));
                asking.push(tokio::spawn(async move { drop(worker.log_out().await) }));
            }
            10 if worker.flush().await.is_ok() && !worker.status().refreshing => {
                told.push(format!("{at}: restart"));
                if dice.roll(8) == 0 {
                    world.configured = world.server.issue_refresh_token();
                }
                worker.kill();
                workers[at] = world.worker();
            }
            _ => sleep(Duration::from_secs(dice.roll(25))).await,
        }
        assert_eq!(world.reuses(), 0, "{seed}: {told:#?}");
    }
    for task in asking {
        task.await.unwrap();
    }
    // No more faults from here.
    world.server.token_faults().clear();
    for worker in &workers {
        worker.store.obey();
    }
    for _ in 0..60 {
        join_all(workers.iter().map(|worker| worker.tokens())).await;
        sleep(Duration::from_secs(31)).await;
    }
    let tokens = join_all(workers.iter().map(|worker| worker.tokens())).await;
    let tokens: Vec<_> = tokens
        .iter()
        .map(|tokens| match tokens {
            Ok(tokens) => access(tokens).to_owned(),
            Err(error) => {
                assert!(error.is_denied(), "{seed}: {error} {told:#?}");
                String::new()
            }
        })
        .collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{seed}: {tokens:?} {told:#?}");
    assert_eq!(world.reuses(), 0, "{seed}: {told:#?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_spent_twice_and_all_come_to_agree() {
    for seed in 0..50 {
        play(seed).await;
    }
}

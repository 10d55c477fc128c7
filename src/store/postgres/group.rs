//! Group commit. A durable commit waits for the disk, and a statement for a round trip, a plan's start and its checks; what is asked for while one
//! is under way is done together by the next statement of its kind, which commits by itself. It answers each member for itself: a member whose
//! row is not as expected finds no row there, and the others don't notice.
//!
//! What fails a statement as a whole (a constraint, a row that somebody else holds) is one member's fault: then each is run alone. So a member is
//! never refused for another's sake, and waits for another's lock no longer than [`GROUP_LOCK_MS`].

use std::pin::Pin;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::fault::Fault;
use crate::store::StoreError;

/// How many may wait for their group; further callers wait for a place.
const QUEUE_LIMIT: usize = 1024;
/// How many one statement takes at most.
const GROUP_LIMIT: usize = 64;
/// How long a group waits for a row that another transaction holds, in milliseconds. Who runs alone waits as long as everybody.
pub(super) const GROUP_LOCK_MS: u64 = 100;

/// What became of the members, in their order; or what befell the statement.
pub(super) type Answers<A> = Result<Vec<Result<A, Fault>>, Fault>;

/// One kind of work, done for all members by one statement.
pub(super) type Work<Q, A> = for<'c> fn(&'c mut PgConnection, &'c [Q]) -> Pin<Box<dyn Future<Output = Answers<A>> + Send + 'c>>;

/// Where groups run, and where members run alone.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    pub(super) grouped: PgPool,
    pub(super) alone: PgPool,
    /// How long the server may take for one group, its commit included.
    pub(super) patience: Duration,
}

/// Who asks for the same kind of work. One group is under way at a time, so that the next one gathers.
#[derive(Debug)]
pub(super) struct Group<Q, A> {
    queue: mpsc::Sender<Asked<Q, A>>,
}

type Asked<Q, A> = (Q, oneshot::Sender<Result<A, Fault>>);

impl<Q: Send + Sync + 'static, A: Send + 'static> Group<Q, A> {
    /// Starts the task that leads the groups. It ends with the last asker.
    pub(super) fn new(pools: &Pools, work: Work<Q, A>) -> Self {
        let (queue, mut asked) = mpsc::channel(QUEUE_LIMIT);
        let pools = pools.clone();
        tokio::spawn(async move {
            let mut group = Vec::new();
            while asked.recv_many(&mut group, GROUP_LIMIT).await > 0 {
                let group: Vec<Asked<Q, A>> = std::mem::take(&mut group);
                // A task of its own: were there a panic in it, the next group would not hear of it.
                let _told = tokio::spawn(answer(pools.clone(), work, group)).await;
            }
        });
        Self { queue }
    }

    /// Joins the next group. The work is done though the caller stops waiting.
    pub(super) async fn ask(&self, question: Q) -> Result<A, Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| Fault::Unreachable("the store is being closed".into());
        self.queue.send((question, reply)).await.map_err(gone)?;
        answer.await.map_err(|_| Fault::Unsure("the group was given up".into()))?
    }
}

async fn answer<Q: Send + Sync + 'static, A: Send + 'static>(pools: Pools, work: Work<Q, A>, group: Vec<Asked<Q, A>>) {
    let (questions, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    let answers = match run(&pools.grouped, pools.patience, work, &questions).await {
        Ok(answers) => answers,
        Err(Fault::Store(_) | Fault::Contended) => {
            for (question, reply) in questions.into_iter().zip(replies) {
                tokio::spawn(answer_alone(pools.clone(), work, question, reply));
            }
            return;
        }
        Err(fault @ (Fault::Unreachable(_) | Fault::Lost(_) | Fault::Unsure(_))) => {
            questions.iter().map(|_| Err(fault.again())).collect()
        }
    };
    for (reply, answer) in replies.into_iter().zip(answers) {
        // Nobody waits any more: it is done all the same.
        let _gone = reply.send(answer);
    }
}

/// Beside the others and beside the next groups: nobody waits for the one who has to.
async fn answer_alone<Q: Send + Sync, A: Send>(
    pools: Pools,
    work: Work<Q, A>,
    question: Q,
    reply: oneshot::Sender<Result<A, Fault>>,
) {
    let unanswered = || Err(Fault::Store(StoreError::Failed("the operation was not run".into())));
    let answers = run(&pools.alone, pools.patience, work, std::slice::from_ref(&question)).await;
    let _gone = reply.send(answers.and_then(|mut answers| answers.pop().unwrap_or_else(unanswered)));
}

async fn run<Q, A>(pool: &PgPool, patience: Duration, work: Work<Q, A>, questions: &[Q]) -> Answers<A> {
    let done = async {
        let mut connection = pool.acquire().await.map_err(Fault::unreachable)?;
        work(&mut connection, questions).await
    };
    let late = |_| Fault::Unsure(format!("no answer within {} ms", patience.as_millis()));
    tokio::time::timeout(patience, done).await.map_err(late)?
}

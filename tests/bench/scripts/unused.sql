-- No document shows the subscription's id at the payment service. Users 1, 4, 7, … have a subscription.
\set n 3 * random(0, (:users - 1) / 3) + 1
\set r random(1, 1000000)
UPDATE user_subscription SET stripe_subscription_id = 'sub_' || :n || '_' || :r WHERE user_id = :n;

-- Users 1, 4, 7, … have a subscription.
\set n 3 * random(0, (:users - 1) / 3) + 1
UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END WHERE user_id = :n;

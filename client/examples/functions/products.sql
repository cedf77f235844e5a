-- Three products of 1,000 items each. Item i of product p costs 10·p + i/100, so that the prices of product p sum up
-- to 10,000·p + 5,005.
create table product_items (
    id         serial primary key,
    product_id integer,
    name       varchar(1000),
    price      numeric
);

create index product_items_product_id on product_items (product_id);

insert into product_items (product_id, name, price)
select product, format('Item %s of product %s', item, product), product * 10 + item * 0.01
from generate_series(1, 3) as product, generate_series(1, 1000) as item
order by product, item;

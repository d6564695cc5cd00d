/** What the compiler must accept and refuse; `tsc` is the test, nothing here runs. */

import { createTocsin, type Schemas } from "../src/index.ts";

const tocsin = createTocsin({ url: "https://api.example.com", accessToken: async () => "token" });
const path = { monitor_id: "92190002-9c06-5629-91ca-479bd106deff" };

export async function whatIsTypedIsAccepted(): Promise<string> {
  const { data: monitor } = await tocsin.post("/v1/monitors", { body: { name: "x", target: "https://example.com/" } });
  const same: Schemas["Monitor"] = monitor;
  const nothing: undefined = (await tocsin.delete("/v1/monitors/{monitor_id}", { params: { path } })).data;
  for await (const incident of tocsin.each("/v1/incidents", { params: { query: { state: ["open", "acknowledged"], limit: 2 } } })) {
    return incident.summary;
  }
  for await (const event of tocsin.follow({ after: monitor.id, orgId: monitor.org_id })) return event.type;
  for await (const page of tocsin.changes()) return page.next_after;
  const unchanged = await tocsin.unless('"x"', "/v1/me");
  return nothing ?? unchanged?.data.email ?? same.name;
}

export async function whatTheApiWouldRefuseIsRefused(): Promise<void> {
  // @ts-expect-error: there is no such path
  await tocsin.get("/v1/nothing");
  // @ts-expect-error: a body is required
  await tocsin.post("/v1/orgs");
  // @ts-expect-error: a field is missing
  await tocsin.post("/v1/monitors", { body: { name: "x" } });
  // @ts-expect-error: a field is not known
  await tocsin.post("/v1/orgs", { body: { name: "x", colour: "red" } });
  // @ts-expect-error: a value is none of the offered ones
  await tocsin.get("/v1/incidents", { params: { query: { state: ["burning"] } } });
  // @ts-expect-error: an id is missing
  await tocsin.get("/v1/monitors/{monitor_id}");
  // @ts-expect-error: this is no list
  tocsin.each("/v1/me");
  // @ts-expect-error: a position is text
  tocsin.follow({ after: 12 });
  // @ts-expect-error: nothing may have changed
  (await tocsin.unless('"x"', "/v1/me")).data;
}

// Sends a file with a generated client, and waits until its rows are stored:
// node upload.js URL KEY FILE ROWS
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { setTimeout } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

type Upload = components["schemas"]["Upload"];

const [url, key, file, rows] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { "X-API-Key": key } });

function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

async function send(): Promise<Upload> {
  const form = new FormData();
  form.append("file", new Blob([new Uint8Array(await readFile(file))]), basename(file));
  const { data, error } = await client.POST("/uploads", {
    params: { query: { header: "true", on_duplicate: "allow" } },
    body: { file: "" },
    bodySerializer: () => form,
  });
  expect(error === undefined && data !== undefined, JSON.stringify(error));
  return data;
}

async function whenEnded(id: string): Promise<Upload> {
  for (let second = 0; second < 60; second++) {
    const { data, error } = await client.GET("/uploads/{id}", { params: { path: { id } } });
    expect(data !== undefined, JSON.stringify(error));
    if (data.finished_at !== null) return data;
    await setTimeout(1000);
  }
  throw new Error(`upload ${id} has not ended`);
}

const upload = await whenEnded((await send()).id);
expect(upload.status === "completed", JSON.stringify(upload));
expect(upload.rows.inserted === Number(rows), JSON.stringify(upload.rows));
expect(upload.filename === basename(file), `the file name is ${upload.filename}`);

const { data: csv } = await client.GET("/uploads/{id}/rows", {
  params: { path: { id: upload.id } },
  parseAs: "text",
});
expect(csv?.trimEnd().split("\n").length === Number(rows) + 1, "the rows differ");

// A refusal is a problem document, whose fields the client knows.
const { error } = await client.GET("/uploads/{id}", {
  params: { path: { id: "00000000-0000-4000-8000-000000000000" } },
});
expect(error?.code === "upload_not_found", JSON.stringify(error));
console.log(`TypeScript: ${upload.rows.inserted} rows of ${upload.filename} are stored`);
